"""The few statements that SQLAlchemy spells differently for each engine."""

import pkgutil
from collections.abc import Callable
from functools import cache

from sqlalchemy import Insert, Table
from sqlalchemy.dialects import sqlite

from gateway.storage.connection import Connection


def insert_new(connection: Connection, table: Table) -> Insert:
    """An INSERT that passes over rows whose key is there already."""
    return _insert_new(connection.dialect.name, table)


def upsert(connection: Connection, table: Table) -> Insert:
    """An INSERT that replaces, in a row whose key is there already, everything else."""
    return _upsert(connection.dialect.name, table)


# Made once: to put them together takes longer than to run them.
@cache
def _insert_new(dialect: str, table: Table) -> Insert:
    return _insert(dialect, table).on_conflict_do_nothing()


@cache
def _upsert(dialect: str, table: Table) -> Insert:
    keys = [column.name for column in table.primary_key]
    statement = _insert(dialect, table)
    others = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=others)


def _insert(dialect: str, table: Table) -> sqlite.Insert:
    """Each dialect's own, with the same `on_conflict` methods; it is imported where the dialect is used."""
    make: Callable[[Table], sqlite.Insert] = pkgutil.resolve_name(f"sqlalchemy.dialects.{dialect}:insert")
    return make(table)


_COUNT_MADE = """
CREATE TRIGGER deliveries_made AFTER INSERT ON deliveries
BEGIN
    INSERT INTO delivery_counts (subscription_id, pending, delivered, dead, cancelled)
    VALUES (
        NEW.subscription_id,
        NEW.status = 'pending', NEW.status = 'delivered', NEW.status = 'dead', NEW.status = 'cancelled'
    )
    ON CONFLICT (subscription_id) DO UPDATE SET
        pending = pending + excluded.pending,
        delivered = delivered + excluded.delivered,
        dead = dead + excluded.dead,
        cancelled = cancelled + excluded.cancelled;
END
"""
_COUNT_CHANGED = """
CREATE TRIGGER deliveries_changed AFTER UPDATE OF status ON deliveries WHEN NEW.status <> OLD.status
BEGIN
    UPDATE delivery_counts SET
        pending = pending + (NEW.status = 'pending') - (OLD.status = 'pending'),
        delivered = delivered + (NEW.status = 'delivered') - (OLD.status = 'delivered'),
        dead = dead + (NEW.status = 'dead') - (OLD.status = 'dead'),
        cancelled = cancelled + (NEW.status = 'cancelled') - (OLD.status = 'cancelled')
    WHERE subscription_id = NEW.subscription_id;
END
"""
_COUNT_GONE = """
CREATE TRIGGER deliveries_gone AFTER DELETE ON deliveries
BEGIN
    UPDATE delivery_counts SET
        pending = pending - (OLD.status = 'pending'),
        delivered = delivered - (OLD.status = 'delivered'),
        dead = dead - (OLD.status = 'dead'),
        cancelled = cancelled - (OLD.status = 'cancelled')
    WHERE subscription_id = OLD.subscription_id;
END
"""
# Of statements, not rows, so that many deliveries are counted at once. Who changes some holds the counts of their
# subscriptions until the transaction ends: they are taken in order of the subscriptions, or two might wait for each
# other.
_COUNT_STATEMENT_MADE = (
    """
CREATE FUNCTION count_deliveries_made() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO delivery_counts AS kept (subscription_id, pending, delivered, dead, cancelled)
    SELECT
        subscription_id,
        count(*) FILTER (WHERE status = 'pending'),
        count(*) FILTER (WHERE status = 'delivered'),
        count(*) FILTER (WHERE status = 'dead'),
        count(*) FILTER (WHERE status = 'cancelled')
    FROM made GROUP BY subscription_id ORDER BY subscription_id
    ON CONFLICT (subscription_id) DO UPDATE SET
        pending = kept.pending + excluded.pending,
        delivered = kept.delivered + excluded.delivered,
        dead = kept.dead + excluded.dead,
        cancelled = kept.cancelled + excluded.cancelled;
    RETURN NULL;
END
$$
""",
    """
CREATE TRIGGER deliveries_made AFTER INSERT ON deliveries REFERENCING NEW TABLE AS made
FOR EACH STATEMENT EXECUTE FUNCTION count_deliveries_made()
""",
)
_COUNT_STATEMENT_CHANGED = (
    """
CREATE FUNCTION count_deliveries_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM was JOIN became USING (id) WHERE was.status <> became.status) THEN
        RETURN NULL;
    END IF;
    PERFORM FROM delivery_counts
        WHERE subscription_id IN (SELECT subscription_id FROM became)
        ORDER BY subscription_id FOR UPDATE;
    UPDATE delivery_counts kept SET
        pending = kept.pending + more.pending,
        delivered = kept.delivered + more.delivered,
        dead = kept.dead + more.dead,
        cancelled = kept.cancelled + more.cancelled
    FROM (
        SELECT
            became.subscription_id,
            count(*) FILTER (WHERE became.status = 'pending')
                - count(*) FILTER (WHERE was.status = 'pending') AS pending,
            count(*) FILTER (WHERE became.status = 'delivered')
                - count(*) FILTER (WHERE was.status = 'delivered') AS delivered,
            count(*) FILTER (WHERE became.status = 'dead')
                - count(*) FILTER (WHERE was.status = 'dead') AS dead,
            count(*) FILTER (WHERE became.status = 'cancelled')
                - count(*) FILTER (WHERE was.status = 'cancelled') AS cancelled
        FROM was JOIN became USING (id) WHERE was.status <> became.status GROUP BY became.subscription_id
    ) more
    WHERE kept.subscription_id = more.subscription_id;
    RETURN NULL;
END
$$
""",
    """
CREATE TRIGGER deliveries_changed AFTER UPDATE ON deliveries REFERENCING OLD TABLE AS was NEW TABLE AS became
FOR EACH STATEMENT EXECUTE FUNCTION count_deliveries_changed()
""",
)
_COUNT_STATEMENT_GONE = (
    """
CREATE FUNCTION count_deliveries_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM delivery_counts
        WHERE subscription_id IN (SELECT subscription_id FROM gone)
        ORDER BY subscription_id FOR UPDATE;
    UPDATE delivery_counts kept SET
        pending = kept.pending - less.pending,
        delivered = kept.delivered - less.delivered,
        dead = kept.dead - less.dead,
        cancelled = kept.cancelled - less.cancelled
    FROM (
        SELECT
            subscription_id,
            count(*) FILTER (WHERE status = 'pending') AS pending,
            count(*) FILTER (WHERE status = 'delivered') AS delivered,
            count(*) FILTER (WHERE status = 'dead') AS dead,
            count(*) FILTER (WHERE status = 'cancelled') AS cancelled
        FROM gone GROUP BY subscription_id
    ) less
    WHERE kept.subscription_id = less.subscription_id;
    RETURN NULL;
END
$$
""",
    """
CREATE TRIGGER deliveries_gone AFTER DELETE ON deliveries REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION count_deliveries_gone()
""",
)
COUNT_DELIVERIES = {
    "sqlite": (_COUNT_MADE, _COUNT_CHANGED, _COUNT_GONE),
    "postgresql": (*_COUNT_STATEMENT_MADE, *_COUNT_STATEMENT_CHANGED, *_COUNT_STATEMENT_GONE),
}
"""What keeps `delivery_counts`, by dialect."""
