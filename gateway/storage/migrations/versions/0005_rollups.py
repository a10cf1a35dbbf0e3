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
    if op.get_bind().dialect.name == "sqlite":
        for trigger in (COUNT_MADE, COUNT_CHANGED, COUNT_GONE):
            op.execute(trigger)
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
