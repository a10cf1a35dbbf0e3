"""On PostgreSQL attempts are kept by the day, so that a day leaves at once. What is there becomes one partition."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

DAY = 86_400_000_000  # microseconds, as moments are kept


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    for statement in (
        "ALTER TABLE attempts RENAME TO attempts_before",
        "ALTER TABLE attempts_before DROP CONSTRAINT attempts_pkey",
        "ALTER INDEX attempts_started RENAME TO attempts_before_started",
        "CREATE TABLE attempts (LIKE attempts_before) PARTITION BY RANGE (started_at)",
        "ALTER TABLE attempts ADD PRIMARY KEY (delivery_id, number, started_at)",
        "CREATE INDEX attempts_started ON attempts (started_at)",
        "CREATE TABLE attempts_default PARTITION OF attempts DEFAULT",
    ):
        op.execute(statement)
    last = connection.scalar(sa.text("SELECT max(started_at) FROM attempts_before"))
    if last is None:
        op.execute("DROP TABLE attempts_before")
        return
    until = (last // DAY + 1) * DAY
    op.execute("ALTER TABLE attempts_before ADD PRIMARY KEY (delivery_id, number, started_at)")
    op.execute(f"ALTER TABLE attempts ATTACH PARTITION attempts_before FOR VALUES FROM (MINVALUE) TO ({until})")
