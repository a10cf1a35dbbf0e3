"""Tallies added to the rollups, and rollups that are old enough dropped: in the background, a little at a time.

tallies ──gather──▶ tallies, each source once ──fold──▶ minute, hour, day × (everything, each type, each library)
                                                                           × (its subscription, all together)

One transaction adds some tallies and deletes them, so each is counted once, however late it comes; no interval is ever
closed. Names beyond as many as are counted go under the empty one. Publishers wait while the writer is kept: what is
folded is eighteen rollups a source, so they are few, and worked out beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, func, select, update

from gateway.rollups.rollups import MOST_NAMES, MOST_NAMES_OF_ALL, Figures, Interval
from gateway.storage import rollup_rows
from gateway.storage.connection import Connection
from gateway.storage.database import Database, Transaction
from gateway.storage.rollup_rows import ALL, EVERYBODY, LIBRARY, OTHERS, TYPE, Key, summed
from gateway.storage.rows import within
from gateway.storage.tables import rollups, tallies
from gateway.storage.tallies import Source, decoded, encoded, merge

SOURCES_AT_ONCE = 2
GATHERED_AT_ONCE = 500
GATHERED_BYTES_AT_ONCE = 128 * 2**10
FOLDED_AT_ONCE = 20
"""Tallies looked at, of which those of the first few sources are folded."""
ROWS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Folding:
    """The background's half of the rollups, over a `Database`."""

    database: Database
    most_names: int = MOST_NAMES
    most_names_of_all: int = MOST_NAMES_OF_ALL
    sources_at_once: int = SOURCES_AT_ONCE
    gathered_at_once: int = GATHERED_AT_ONCE
    rows_at_once: int = ROWS_AT_ONCE

    async def gather(self) -> tuple[int, bool]:
        """Put the oldest tallies together, so that each of their sources is folded once. How many are left of them, and
        whether there are others."""

        async def work(transaction: Transaction) -> tuple[int, bool]:
            connection = transaction.connection
            sizes = (await connection.execute(_SIZES, {"most": self.gathered_at_once})).all()
            last = within([tuple(row) for row in sizes], GATHERED_BYTES_AT_ONCE)
            rows = (await connection.execute(_OLDEST, {"last": last, "most": len(sizes)})).all() if sizes else ()
            has_more = len(sizes) == self.gathered_at_once or len(rows) < len(sizes)
            if len(rows) < 2:
                return len(rows), has_more
            found: dict[Source, Figures] = {}
            for row in rows:
                merge(found, decoded(row.figures))
            together = encoded(found, most_rows=len(rows))
            ids = [row.id for row in rows]
            await connection.execute(
                _REPLACE, [{"of": id_, "new": each} for id_, each in zip(ids, together, strict=False)]
            )
            if spare := ids[len(together) :]:
                await connection.execute(_DELETE, {"ids": spare})
            return len(together), has_more

        return await self.database.write(work, durable=False, can_wait=True)

    async def fold(self) -> bool:
        """Add the oldest tallies to the rollups. False: there were none."""
        async with self.database.reading() as connection:
            read, found = await _some_tallies(connection, self.sources_at_once)
            rows = await self._added(connection, found) if read else {}

        async def work(transaction: Transaction) -> None:
            connection = transaction.connection
            held = (await connection.execute(_HELD, {"ids": list(read)})).all()
            if {row.id: row.figures for row in held} != read:
                return  # another process has folded or gathered some of them: they are looked at again
            await rollup_rows.put(connection, rows)
            await connection.execute(_DELETE, {"ids": list(read)})

        if read:
            # What a power failure takes back is a tally again.
            await self.database.write(work, durable=False, can_wait=True)
        return bool(read)

    async def drop_old(self, now: datetime) -> bool:
        """Drop some rollups that have been kept for long enough. False: there were none."""

        async def work(transaction: Transaction) -> bool:
            for interval in Interval:
                if rows := await _old(transaction.connection, interval, now - interval.kept, self.rows_at_once):
                    await transaction.connection.execute(_DROP, rows)
                    return True
            return False

        return await self.database.write(work, durable=False, can_wait=True)

    async def _added(self, connection: Connection, found: Mapping[Source, Figures]) -> dict[Key, Figures]:
        """The rollups that *found* belong to, with them."""
        wanted = summed(found, *Interval)
        others = {key._replace(name=OTHERS) for key in wanted}
        kept = await rollup_rows.kept(connection, wanted.keys() | others)
        bounded = await self._bounded(connection, wanted, kept)
        for key, figures in bounded.items():
            if key in kept:
                figures.add(kept[key])
        return bounded

    async def _bounded(
        self, connection: Connection, wanted: Mapping[Key, Figures], kept: Mapping[Key, Figures]
    ) -> dict[Key, Figures]:
        """*wanted*, but what has no name yet, where there are as many as there may be, under `OTHERS`."""
        fresh = [key for key in wanted if key not in kept and key.dimension != ALL]
        named = await rollup_rows.names(connection, {key.group for key in fresh})
        bounded = {key: wanted[key] for key in wanted.keys() - set(fresh)}
        for key in fresh:
            most = self.most_names_of_all if key.subscription_id == EVERYBODY else self.most_names
            if named[key.group] < most:
                named[key.group] += 1
                bounded[key] = wanted[key]
            else:
                bounded.setdefault(key._replace(name=OTHERS), Figures()).add(wanted[key])
        return bounded


async def _some_tallies(connection: Connection, most: int) -> tuple[dict[int, bytes], dict[Source, Figures]]:
    """The oldest, of at most *most* sources together, but one tally at least; and these by their sources."""
    read: dict[int, bytes] = {}
    found: dict[Source, Figures] = {}
    for row in await connection.execute(_FIRST, {"most": FOLDED_AT_ONCE}):
        some = decoded(row.figures)
        if found and len(found.keys() | {each.source for each in some}) > most:
            break
        merge(found, some)
        read[row.id] = row.figures
    return read, found


async def _old(connection: Connection, interval: Interval, before: datetime, limit: int) -> list[dict[str, Any]]:
    """Primary keys of some that began before *before*, as parameters of `_DROP`."""
    for dimension in (ALL, TYPE, LIBRARY):
        some = (
            select(*_PRIMARY)
            .where(rollups.c.interval == interval.value, rollups.c.dimension == dimension, rollups.c.start < before)
            .order_by(rollups.c.start)
            .limit(limit)
        )
        if rows := (await connection.execute(some)).all():
            return [{f"old_{name}": value for name, value in row._asdict().items()} for row in rows]
    return []


_SIZES = (
    select(tallies.c.id, func.length(tallies.c.figures))
    .order_by(tallies.c.id)
    .limit(bindparam("most"))
    .with_for_update()
)
_OLDEST = (
    select(tallies)
    .where(tallies.c.id <= bindparam("last"))
    .order_by(tallies.c.id)
    .limit(bindparam("most"))
    .with_for_update()
)
_FIRST = select(tallies).order_by(tallies.c.id).limit(bindparam("most"))
_HELD = (
    select(tallies).where(tallies.c.id.in_(bindparam("ids", expanding=True))).order_by(tallies.c.id).with_for_update()
)
_REPLACE = update(tallies).where(tallies.c.id == bindparam("of")).values(figures=bindparam("new"))
_DELETE = delete(tallies).where(tallies.c.id.in_(bindparam("ids", expanding=True)))
_PRIMARY = tuple(rollups.c[name] for name in Key._fields)
_DROP = delete(rollups).where(*(each == bindparam(f"old_{each.name}") for each in _PRIMARY))
