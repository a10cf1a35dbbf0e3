"""The fan-out's place tells who is behind, and from where on; before, it told who had theirs of one event."""

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("cursors", sa.Column("ahead", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    op.add_column("cursors", sa.Column("behind", sa.LargeBinary()))
    connection = op.get_bind()
    for reader, cursor, made in connection.execute(
        sa.text("SELECT reader, cursor, made FROM cursors WHERE made IS NOT NULL")
    ).all():
        # A process was killed between the two commits that one event had.
        have = set(msgspec.json.decode(made))
        lack = [id_ for id_ in connection.execute(sa.text("SELECT id FROM subscriptions")).scalars() if id_ not in have]
        connection.execute(
            sa.text("UPDATE cursors SET ahead = :ahead, behind = :behind WHERE reader = :reader"),
            {"reader": reader, "ahead": cursor + 1, "behind": msgspec.json.encode(dict.fromkeys(lack, cursor))},
        )
    op.drop_column("cursors", "made")
