"""Replays: which events each is of and how far it is, and a rank for what they make: behind live work."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

PENDING = "status = 'pending'"
LANE_INDEXES: dict[str, tuple[Sequence[str], str, str]] = {
    "deliveries_due": (("due_at", "cursor", "id"), PENDING, PENDING),
    "deliveries_forced": (("due_at", "cursor", "id"), f"{PENDING} AND forced = 1", f"{PENDING} AND forced"),
    "deliveries_in_order": (("library_id", "cursor", "id"), PENDING, PENDING),
}


def upgrade() -> None:
    op.add_column("subscriptions", sa.Column("filter_since", sa.BigInteger()))
    op.add_column("deliveries", sa.Column("rank", sa.SmallInteger(), nullable=False, server_default=sa.text("0")))
    for name, (columns, on_sqlite, on_postgresql) in LANE_INDEXES.items():
        op.drop_index(name, "deliveries")
        op.create_index(
            name,
            "deliveries",
            ["subscription_id", "rank", *columns],
            sqlite_where=sa.text(on_sqlite),
            postgresql_where=sa.text(on_postgresql),
        )
    op.drop_index("deliveries_replay", "deliveries")
    op.create_index(
        "deliveries_replay",
        "deliveries",
        ["replay_id", "status", "attempt_count", "id"],
        sqlite_where=sa.text("replay_id IS NOT NULL"),
        postgresql_where=sa.text("replay_id IS NOT NULL"),
    )
    for column in (
        sa.Column("own_filter", sa.LargeBinary()),
        sa.Column("library_ids", sa.LargeBinary()),
        sa.Column("types", sa.LargeBinary()),
        sa.Column("undelivered", sa.Boolean()),
        sa.Column("max_per_second", sa.Float()),
        sa.Column("cursor", sa.BigInteger()),
        sa.Column("last", sa.BigInteger()),
        sa.Column("created", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("stopped_at", sa.BigInteger()),
        sa.Column("finished_at", sa.BigInteger()),
    ):
        op.add_column("replays", column)
    # There were redeliveries only until now, which make all of theirs at once.
    op.execute(sa.text("UPDATE replays SET created = matched"))
    op.create_index(
        "replays_unfinished",
        "replays",
        ["subscription_id", "id"],
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )
