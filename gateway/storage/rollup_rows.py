"""Rows of the rollups table: which of them a tally belongs to, and how they are found and written, many at once."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, bindparam, func, select

from gateway.rollups.rollups import Figures, Interval
from gateway.storage.connection import Connection
from gateway.storage.dialects import upsert
from gateway.storage.tables import rollups
from gateway.storage.tallies import Source

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

    @property
    def group(self) -> "Group":
        """Within which names are counted."""
        return self.subscription_id, self.interval, self.dimension, self.start


Group = tuple[str, str, str, datetime]


def keys_of(source: Source, interval: Interval) -> Iterator[Key]:
    """The rollups that what comes from *source* belongs to."""
    start = interval.start(source.moment)
    for owner in (source.subscription_id, EVERYBODY):
        for dimension, name in ((ALL, OTHERS), (TYPE, source.type), (LIBRARY, source.library_id)):
            yield Key(owner, interval.value, dimension, start, name)


def summed(found: Mapping[Source, Figures], *intervals: Interval) -> dict[Key, Figures]:
    """By each rollup that they belong to."""
    sums: defaultdict[Key, Figures] = defaultdict(Figures)
    for source, figures in found.items():
        for interval in intervals:
            for key in keys_of(source, interval):
                sums[key].add(figures)
    return dict(sums)


def key_of(row: Row[Any]) -> Key:
    return Key(row.subscription_id, row.interval, row.dimension, row.start, row.name)


def figures_of(row: Row[Any]) -> Figures:
    return Figures(
        attempts=row.attempts,
        failed_attempts=row.failed_attempts,
        delivered=row.delivered,
        dead=row.dead,
        durations=row.durations,
        latencies=row.latencies,
    )


async def kept(connection: Connection, keys: Collection[Key]) -> dict[Key, Figures]:
    """Those of *keys* that have a row."""
    found: dict[Key, Figures] = {}
    for place, some in _by_place(keys):
        spots = [f"{key.subscription_id}/{key.name}" for key in some]
        for row in await connection.execute(_KEPT, place | {"spots": spots}):
            found[key_of(row)] = figures_of(row)
    return found


async def names(connection: Connection, groups: Collection[Group]) -> Counter[Group]:
    """How many names each of *groups* has, `OTHERS` among them, which is there only where there are enough."""
    found: Counter[Group] = Counter()
    for place, some in _by_place([Key(*group, OTHERS) for group in groups]):
        for owner, count in await connection.execute(_NAMES, place):
            found[some[0]._replace(subscription_id=owner).group] = count
    return found


async def put(connection: Connection, figures: Mapping[Key, Figures]) -> None:
    """Write *figures* as their rows, whatever was there."""
    rows = [
        key._asdict()
        | {
            "attempts": each.attempts,
            "failed_attempts": each.failed_attempts,
            "delivered": each.delivered,
            "dead": each.dead,
            "durations": each.durations,
            "latencies": each.latencies,
        }
        for key, each in figures.items()
    ]
    await connection.execute(upsert(connection, rollups), rows)


def _by_place(keys: Collection[Key]) -> Iterator[tuple[dict[str, Any], list[Key]]]:
    """*keys* that differ by subscription and name only, and as parameters what they have in common."""
    found: defaultdict[tuple[str, str, datetime], list[Key]] = defaultdict(list)
    for key in keys:
        found[key.interval, key.dimension, key.start].append(key)
    for (interval, dimension, start), some in found.items():
        owners = sorted({key.subscription_id for key in some})
        yield {"interval": interval, "dimension": dimension, "start": start, "owners": owners}, some


_AT_PLACE = (
    rollups.c.subscription_id.in_(bindparam("owners", expanding=True)),
    rollups.c.interval == bindparam("interval"),
    rollups.c.dimension == bindparam("dimension"),
    rollups.c.start == bindparam("start"),
)
# By the primary key down to the start, and of that by name: SQLite looks at every row for several columns `IN` a list,
# and to put together a statement with a parameter for each takes seconds.
_SPOT = rollups.c.subscription_id + "/" + rollups.c.name
_KEPT = select(rollups).where(*_AT_PLACE, _SPOT.in_(bindparam("spots", expanding=True)))
_NAMES = select(rollups.c.subscription_id, func.count()).where(*_AT_PLACE).group_by(rollups.c.subscription_id)
