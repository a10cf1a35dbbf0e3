"""The few statements that SQLAlchemy spells differently for each engine."""

from sqlalchemy import Insert, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

_Insert = sqlite.Insert | postgresql.Insert


def insert_new(connection: AsyncConnection, table: Table) -> Insert:
    """An INSERT that passes over rows whose key is there already."""
    return _insert(connection, table).on_conflict_do_nothing()


def upsert(connection: AsyncConnection, table: Table) -> Insert:
    """An INSERT that replaces, in a row whose key is there already, everything else."""
    keys = [column.name for column in table.primary_key]
    statement = _insert(connection, table)
    others = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=others)


def _insert(connection: AsyncConnection, table: Table) -> _Insert:
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


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
COUNT_DELIVERIES = {"sqlite": (_COUNT_MADE, _COUNT_CHANGED, _COUNT_GONE)}
"""What keeps `delivery_counts`, by dialect. (PostgreSQL's would be of a statement, over its transition tables, and each
connection's in rows of its own, so that no two wait for each other.)"""
