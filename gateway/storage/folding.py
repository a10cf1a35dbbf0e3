"""Tallies added to the rollups, and rollups that are old enough dropped: in the background, a little at a time.

tallies ──fold──▶ minute, hour, day × (everything, each type, each library) × (its subscription, all together)

One transaction adds some tallies and deletes them, so each is counted once, however late it comes; no interval is ever
closed. Names beyond as many as are counted go under the empty one.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, FromClause, and_, bindparam, column, delete, func, select, values
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.rollups import MOST_NAMES, MOST_NAMES_OF_ALL, Figures, Interval
from gateway.storage.database import Database, Transaction
from gateway.storage.dialects import upsert
from gateway.storage.rows import within
from gateway.storage.tables import rollups, tallies
from gateway.storage.tallies import Tally, decoded

BYTES_AT_ONCE = 64 * 2**10
"""Of tallies in one transaction: some hundred rollups, so that publishers do not wait for it."""
TALLIES_AT_ONCE = 1_000
ROWS_AT_ONCE = 500
_KEYS_AT_ONCE = 500  # five parameters each in one statement

ALL, TYPE, LIBRARY = "all", "type", "library"
EVERYBODY = ""
"""In place of a subscription: all together."""
OTHERS = ""
"""In place of a name."""


class Key(NamedTuple):
    """A rollup's primary key, in its order."""

    subscription_id: str
    interval: str
    dimension: str
    start: datetime
    name: str


@dataclass(frozen=True, slots=True)
class Folding:
    """The background's half of the rollups, over a `Database`."""

    database: Database
    most_names: int = MOST_NAMES
    most_names_of_all: int = MOST_NAMES_OF_ALL
    bytes_at_once: int = BYTES_AT_ONCE
    rows_at_once: int = ROWS_AT_ONCE

    async def fold(self) -> bool:
        """Add some tallies to the rollups. False: there were none."""

        async def work(transaction: Transaction) -> bool:
            connection = transaction.connection
            ids, found = await _some_tallies(connection, self.bytes_at_once)
            if not ids:
                return False
            await self._add(connection, found)
            await connection.execute(delete(tallies).where(tallies.c.id.in_(ids)))
            return True

        # What a power failure takes back is a tally again.
        return await self.database.write(work, durable=False)

    async def drop_old(self, now: datetime) -> bool:
        """Drop some rollups that have been kept for long enough. False: there were none."""

        async def work(transaction: Transaction) -> bool:
            for interval in Interval:
                if rows := await _old(transaction.connection, interval, now - interval.kept, self.rows_at_once):
                    await transaction.connection.execute(_DROP, rows)
                    return True
            return False

        return await self.database.write(work, durable=False)

    async def _add(self, connection: AsyncConnection, found: Iterable[Tally]) -> None:
        wanted = summed(found)
        kept = await _kept(connection, wanted)
        bounded = await self._bounded(connection, wanted, kept)
        kept |= await _kept(connection, bounded.keys() - wanted.keys())
        for key, figures in kept.items():
            if key in bounded:
                bounded[key].add(figures)
        # In one order, so that two processes never wait for each other.
        await connection.execute(
            upsert(connection, rollups), [_row(key, figures) for key, figures in sorted(bounded.items(), key=_key_of)]
        )

    async def _bounded(
        self, connection: AsyncConnection, wanted: dict[Key, Figures], kept: Collection[Key]
    ) -> dict[Key, Figures]:
        """*wanted*, but what has no name yet, where there are as many as there may be, under `OTHERS`."""
        fresh = [key for key in wanted if key not in kept and key.dimension != ALL]
        named = await _names(connection, {key[:4] for key in fresh})
        bounded: dict[Key, Figures] = {key: wanted[key] for key in wanted.keys() - set(fresh)}
        for key in fresh:
            most = self.most_names_of_all if key.subscription_id == EVERYBODY else self.most_names
            if named[key[:4]] < most:
                named[key[:4]] += 1
                bounded[key] = wanted[key]
            else:
                bounded.setdefault(key._replace(name=OTHERS), Figures()).add(wanted[key])
        return bounded


def summed(found: Iterable[Tally]) -> dict[Key, Figures]:
    """By each rollup that they belong to."""
    sums: defaultdict[Key, Figures] = defaultdict(Figures)
    for each in found:
        figures = each.figures
        for key in keys_of(each):
            sums[key].add(figures)
    return dict(sums)


def keys_of(one: Tally) -> Iterator[Key]:
    for interval in Interval:
        start = interval.start(one.moment)
        for owner in (one.subscription_id, EVERYBODY):
            for dimension, name in ((ALL, OTHERS), (TYPE, one.type), (LIBRARY, one.library_id)):
                yield Key(owner, interval.value, dimension, start, name)


def figures_of(row: Any) -> Figures:  # noqa: ANN401 - a row of rollups
    return Figures(
        attempts=row.attempts,
        failed_attempts=row.failed_attempts,
        delivered=row.delivered,
        dead=row.dead,
        durations=row.durations,
        latencies=row.latencies,
    )


async def _some_tallies(connection: AsyncConnection, max_bytes: int) -> tuple[Sequence[int], list[Tally]]:
    """The oldest, held until the transaction ends: who folds beside this waits for the same ones, and they are gone."""
    sizes = select(tallies.c.id, func.length(tallies.c.figures)).order_by(tallies.c.id).limit(TALLIES_AT_ONCE)
    seen = [(id_, size) for id_, size in await connection.execute(sizes.with_for_update())]
    if (last := within(seen, max_bytes)) is None:
        return [], []
    ids = [id_ for id_, _ in seen if id_ <= last]
    rows = (await connection.execute(select(tallies.c.figures).where(tallies.c.id.in_(ids)))).scalars()
    return ids, [each for figures in rows for each in decoded(figures)]


async def _kept(connection: AsyncConnection, keys: Collection[Key]) -> dict[Key, Figures]:
    """Those of *keys* that have a row."""
    found: dict[Key, Figures] = {}
    for some in _portions(sorted(keys)):
        rows = await connection.execute(select(rollups).select_from(_among(some, _PRIMARY)))
        found |= {Key(*(row[:5])): figures_of(row) for row in rows}
    return found


async def _names(connection: AsyncConnection, groups: Collection[tuple[Any, ...]]) -> Counter[tuple[Any, ...]]:
    """How many names each group has: subscription, interval, dimension, start."""
    found: Counter[tuple[Any, ...]] = Counter()
    for some in _portions(sorted(groups)):
        counted = select(*_GROUP, func.count()).select_from(_among(some, _GROUP)).where(rollups.c.name > OTHERS)
        for row in await connection.execute(counted.group_by(*_GROUP)):
            found[tuple(row[:4])] = row[4]
    return found


async def _old(connection: AsyncConnection, interval: Interval, before: datetime, limit: int) -> list[dict[str, Any]]:
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


def _among(some: Sequence[Any], columns: Sequence[ColumnElement[Any]]) -> FromClause:
    """The rollups whose *columns* are one of *some*. (SQLite looks at every row for several columns `IN` a list.)"""
    wanted = values(*(column(each.name, each.type) for each in columns), name="wanted").data(list(some)).cte("wanted")
    return wanted.join(rollups, and_(*(wanted.c[each.name] == each for each in columns)))


def _portions(keys: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        yield keys[start : start + _KEYS_AT_ONCE]


def _key_of(item: tuple[Key, Figures]) -> Key:
    return item[0]


def _row(key: Key, figures: Figures) -> dict[str, Any]:
    return key._asdict() | {
        "attempts": figures.attempts,
        "failed_attempts": figures.failed_attempts,
        "delivered": figures.delivered,
        "dead": figures.dead,
        "durations": figures.durations,
        "latencies": figures.latencies,
    }


_PRIMARY = tuple(rollups.c[name] for name in Key._fields)
_GROUP = _PRIMARY[:4]
_DROP = delete(rollups).where(*(each == bindparam(f"old_{each.name}") for each in _PRIMARY))
