"""Indexes by which retention finds what is to go, so that it never looks at what stays."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_index(
        "deliveries_leaving",
        "deliveries",
        ["cursor"],
        unique=False,
        sqlite_where=sa.text("status = 'pending'"),
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "deliveries_settled",
        "deliveries",
        ["settled_at"],
        unique=False,
        sqlite_where=sa.text("settled_at IS NOT NULL"),
        postgresql_where=sa.text("settled_at IS NOT NULL"),
    )
    op.create_index("attempts_started", "attempts", ["started_at"], unique=False)
    op.create_index("replays_created", "replays", ["created_at"], unique=False)
    op.create_index("tombstones_cursor", "tombstones", ["cursor"], unique=False)
