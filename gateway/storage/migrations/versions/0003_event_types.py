"""What is known of event types: description, schema, and whether data is held to it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "event_types",
        sa.Column("type", sa.String(length=128), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("schema", sa.LargeBinary(), nullable=True),
        sa.Column("validation", sa.String(length=16), nullable=False),
        sa.Column("created_cursor", sa.BigInteger(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("type"),
    )
    op.create_index("event_types_created", "event_types", ["created_cursor"], unique=False)
