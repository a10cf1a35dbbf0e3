"""Attempts by the day: a partition for each, made ahead, and dropped whole.

    attempts ─┬─ attempts_20251027, attempts_20251028 …    one a day, UTC; today's and tomorrow's are always there
              ├─ attempts_before                           what there was when attempts were not kept by the day yet
              └─ attempts_default                          the net, for moments that have no partition

A partition is made and dropped under locks that are not waited for long: at the next look there is another chance.
"""

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta

import asyncpg
import structlog
from sqlalchemy import text

from gateway.storage.connection import Connection
from gateway.times import to_micros

DAY = timedelta(days=1)
TOO_LONG = 10
"""An attempt stays for no more than this part (a tenth) of its time longer than it should, until its day is over."""
_BOUNDS = re.compile(r"FROM \('?(MINVALUE|-?\d+)'?\) TO \('?(\d+)'?\)")

_logger = structlog.get_logger(__name__)


def ahead(now: datetime) -> tuple[date, ...]:
    """Days that there has to be a partition for."""
    today = now.astimezone(UTC).date()
    return today, today + DAY


def row_by_row_until(before: datetime, now: datetime) -> datetime:
    """Attempts from before this go each by itself; later ones wait for their day to be over, but for so short a
    retention that this would be long."""
    if (now - before) < TOO_LONG * DAY:
        return before
    return _start(before.astimezone(UTC).date())


async def make_days(connection: Connection, days: Iterable[date]) -> None:
    """Make the partitions of *days* that are not there."""
    bounds = list((await _partitions(connection)).values())
    for day in sorted(days):
        start, end = to_micros(_start(day)), to_micros(_start(day + DAY))
        if any((first is None or first < end) and start < last for first, last in bounds):
            continue
        name = f"attempts_{day:%Y%m%d}"
        for statement in _MAKE:
            await connection.execute(text(statement.format(name=name, start=start, end=end)))


async def turn_days(connection: Connection, *, before: datetime, now: datetime) -> None:
    """Drop the days that were over before *before*, and make those ahead; what others are in the way of comes later."""
    if not await connection.scalar(_MY_TURN):
        return
    await connection.execute(text("SAVEPOINT days"))
    try:
        await connection.execute(text("SET LOCAL lock_timeout = '500ms'"))
        await make_days(connection, ahead(now))
        until = to_micros(before)
        if old := [name for name, (_, last) in (await _partitions(connection)).items() if last <= until]:
            await connection.execute(text("LOCK TABLE attempts IN ACCESS EXCLUSIVE MODE"))
            await connection.execute(text(f"DROP TABLE {', '.join(old)}"))
            _logger.info("attempts.days_dropped", partitions=old)
    except asyncpg.LockNotAvailableError:
        _logger.info("attempts.days_later")
        await connection.execute(text("ROLLBACK TO SAVEPOINT days"))


async def _partitions(connection: Connection) -> dict[str, tuple[int | None, int]]:
    """From when to when each has attempts, less the one that has all others."""
    found = {name: _BOUNDS.search(bounds) for name, bounds in await connection.execute(_PARTITIONS)}
    return {
        name: (None if bounds[1] == "MINVALUE" else int(bounds[1]), int(bounds[2]))
        for name, bounds in found.items()
        if bounds is not None
    }


def _start(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


_MY_TURN = text("SELECT pg_try_advisory_xact_lock(hashtextextended('arrw-gateway.days.' || current_schema(), 0))")
_PARTITIONS = text("""
    SELECT relname, pg_get_expr(relpartbound, pg_class.oid)
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'attempts'::regclass ORDER BY relname
""")
_MAKE = (
    "LOCK TABLE attempts_default IN ACCESS EXCLUSIVE MODE",
    "CREATE TABLE {name} (LIKE attempts INCLUDING ALL)",
    """
    WITH taken AS (DELETE FROM attempts_default WHERE started_at >= {start} AND started_at < {end} RETURNING *)
    INSERT INTO {name} SELECT * FROM taken
    """,
    "ALTER TABLE attempts ATTACH PARTITION {name} FOR VALUES FROM ({start}) TO ({end})",
)
"""What comes too early is in the one that is the net."""
