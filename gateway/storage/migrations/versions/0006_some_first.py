"""The fan-out's cursor tells which subscriptions have their delivery of the event after it."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("cursors", sa.Column("made", sa.LargeBinary()))
