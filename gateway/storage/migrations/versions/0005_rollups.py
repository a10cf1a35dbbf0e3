"""Rollups of what deliveries came to, and counts of deliveries by status."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

COUNTED = """
INSERT INTO delivery_counts (subscription_id, pending, delivered, dead, cancelled)
SELECT
    subscription_id,
    sum(CASE WHEN status = 'pending' THEN 1 ELSE 0 END),
    sum(CASE WHEN status = 'delivered' THEN 1 ELSE 0 END),
    sum(CASE WHEN status = 'dead' THEN 1 ELSE 0 END),
    sum(CASE WHEN status = 'cancelled' THEN 1 ELSE 0 END)
FROM deliveries GROUP BY subscription_id
"""
COUNT_MADE = """
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
COUNT_CHANGED = """
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
COUNT_GONE = """
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

COUNT_STATEMENT_MADE = (
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
COUNT_STATEMENT_CHANGED = (
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
COUNT_STATEMENT_GONE = (
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
    "sqlite": (COUNT_MADE, COUNT_CHANGED, COUNT_GONE),
    "postgresql": (*COUNT_STATEMENT_MADE, *COUNT_STATEMENT_CHANGED, *COUNT_STATEMENT_GONE),
}


def upgrade() -> None:
    op.create_table(
        "delivery_counts",
        sa.Column("subscription_id", sa.String(length=64), nullable=False),
        sa.Column("pending", sa.BigInteger(), nullable=False),
        sa.Column("delivered", sa.BigInteger(), nullable=False),
        sa.Column("dead", sa.BigInteger(), nullable=False),
        sa.Column("cancelled", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subscription_id"),
    )
    op.execute(COUNTED)
    for statement in COUNT_DELIVERIES[op.get_bind().dialect.name]:
        op.execute(statement)
    op.create_table(
        "tallies",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("figures", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "rollups",
        sa.Column("subscription_id", sa.String(length=64), nullable=False),
        sa.Column("interval", sa.String(length=8), nullable=False),
        sa.Column("dimension", sa.String(length=16), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("failed_attempts", sa.BigInteger(), nullable=False),
        sa.Column("delivered", sa.BigInteger(), nullable=False),
        sa.Column("dead", sa.BigInteger(), nullable=False),
        sa.Column("durations", sa.LargeBinary(), nullable=False),
        sa.Column("latencies", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("subscription_id", "interval", "dimension", "start", "name"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "rollups_newest", "rollups", ["interval", "dimension", "start", "name", "subscription_id"], unique=False
    )
    open_ = sa.text("circuit_open_until IS NOT NULL")
    op.create_index(
        "lanes_open", "lanes", ["subscription_id"], unique=False, sqlite_where=open_, postgresql_where=open_
    )
