"""Which process owns a lane, where several send."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "nodes",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("leaving", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "lane_owners",
        sa.Column("subscription_id", sa.String(64), primary_key=True),
        sa.Column("node", sa.String(64)),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.Column("released_at", sa.BigInteger()),
    )
    owned = sa.text("node IS NOT NULL")
    op.create_index("lane_owners_node", "lane_owners", ["node"], sqlite_where=owned, postgresql_where=owned)
