"""Rollups for those who ask: what is folded, and with it the tallies that are not, so that nothing is late."""

from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal, select, tuple_

from gateway.keys import holds
from gateway.listing import EXAMINED_ROWS, Listing
from gateway.rollups.rollups import Figures, Grouping, Interval, Overview, Place, Rollup, RollupQuery, Standing
from gateway.storage.backlog import earliest_due, earliest_due_of
from gateway.storage.connection import Connection
from gateway.storage.database import Database
from gateway.storage.rollup_rows import ALL, EVERYBODY, LIBRARY, OTHERS, TYPE, Key, figures_of, key_of, summed
from gateway.storage.subscription_rows import health_of
from gateway.storage.tables import OPEN, delivery_counts, lanes, rollups, subscriptions, tombstones
from gateway.storage.tallies import all_tallies
from webhooks.deliveries import DeliveryStatus
from webhooks.endpoints import Health

ROWS_AT_ONCE = 1_000
_STATUSES = tuple(status.value for status in DeliveryStatus)
_DIMENSIONS = {Grouping.TYPE: TYPE, Grouping.LIBRARY: LIBRARY}


class SqlRollups:
    """`gateway.rollups.rollups.Rollups` over a `Database`."""

    def __init__(
        self, database: Database, *, examined_rows: int = EXAMINED_ROWS, rows_at_once: int = ROWS_AT_ONCE
    ) -> None:
        self._database = database
        self._examined_rows = examined_rows
        self._rows_at_once = rows_at_once

    async def list(self, query: RollupQuery) -> Listing[Rollup, Place]:
        async with self._database.reading() as connection:
            return await self._page(connection, query)

    async def standing(self, subscription_id: str, *, since: datetime) -> Standing:
        query = RollupQuery(
            libraries=None,
            interval=Interval.HOUR,
            grouping=Grouping.NOTHING,
            since=since,
            subscription_id=subscription_id,
            limit=EXAMINED_ROWS,
        )
        async with self._database.reading() as connection:
            recent = Figures()
            for rollup in (await self._page(connection, query)).rows:
                recent.add(rollup.figures)
            counted = select(delivery_counts).where(delivery_counts.c.subscription_id == subscription_id)
            lane = select(lanes).where(lanes.c.subscription_id == subscription_id)
            health = (await connection.execute(lane)).one_or_none()
            return Standing(
                counts=_counts((await connection.execute(counted)).one_or_none()),
                recent=recent,
                oldest_due_at=await earliest_due_of(connection, subscription_id),
                health=Health() if health is None else health_of(health),
            )

    async def overview(self) -> Overview:
        totals = select(*(func.sum(delivery_counts.c[status]).label(status) for status in _STATUSES))
        circuits = select(func.count()).select_from(lanes).where(OPEN)
        async with self._database.reading() as connection:
            return Overview(
                counts=_counts((await connection.execute(totals)).one()),
                open_circuits=await connection.scalar(circuits) or 0,
                oldest_due_at=min((await earliest_due(connection)).values(), default=None),
            )

    async def _page(self, connection: Connection, query: RollupQuery) -> Listing[Rollup, Place]:
        """Rows by falling (start, name, subscription): those of one group come together, and are read to their end."""
        reading = _Reading(connection, query)
        complete, more = None, True  # the place down to which groups are whole
        while (
            more
            and len(reading.groups) <= query.limit + 1
            and (reading.examined < self._examined_rows or complete is None)
        ):
            complete, more = await reading.on(complete, self._rows_at_once)
        if not more:
            complete = None
        await reading.add_tallies()
        places = sorted((place for place in reading.groups if complete is None or place >= complete), reverse=True)
        page = tuple(
            Rollup(start=start, group=group or None, figures=reading.groups[start, group])
            for start, group in places[: query.limit]
        )
        if len(places) > query.limit:
            complete = places[query.limit - 1]
        return Listing(page, None if complete is None else Place(start=complete[0], group=complete[1]))


def _counts(row: Any) -> dict[str, int]:  # noqa: ANN401 - a row with a column for each status
    return {status: 0 if row is None else getattr(row, status) or 0 for status in _STATUSES}


class _Reading:
    """The rows of one question, read on and on, and added up by group."""

    def __init__(self, connection: Connection, query: RollupQuery) -> None:
        self._connection = connection
        self._query = query
        self._dimension = _DIMENSIONS.get(query.grouping, ALL)
        self._since = query.interval.start(query.since)
        self._last: Key | None = None
        self._seen: dict[str, bool] = {}
        self.examined = 0
        self.groups: dict[_GroupPlace, Figures] = {}

    async def on(self, complete: "_GroupPlace | None", limit: int) -> "tuple[_GroupPlace | None, bool]":
        """Some more rows. Down to where groups are whole now (it was *complete* before), and whether there are more."""
        rows = (await self._connection.execute(self._rows().limit(limit))).all()
        await self._learn({row.subscription_id for row in rows})
        before = None if self._last is None else self._place(self._last)
        for row in rows:
            key = key_of(row)
            if before is not None and (place := self._place(key)) != before:
                complete, before = before, place
            before = before or self._place(key)
            self._add(key, figures_of(row))
            self._last = key
        self.examined += len(rows)
        return complete, len(rows) == limit

    async def add_tallies(self) -> None:
        """What is not in the rollups yet."""
        found = summed(await all_tallies(self._connection), self._query.interval)
        wanted = {key: figures for key, figures in found.items() if self._concerns(key)}
        await self._learn({key.subscription_id for key in wanted})
        for key, figures in wanted.items():
            self._add(key, figures)

    def _rows(self) -> Select[Any]:
        query = self._query
        wanted = (
            select(rollups)
            .where(
                rollups.c.interval == query.interval.value,
                rollups.c.dimension == self._dimension,
                rollups.c.start >= self._since,
                self._owner(),
            )
            .order_by(rollups.c.start.desc(), rollups.c.name.desc(), rollups.c.subscription_id.desc())
        )
        if query.until is not None:
            wanted = wanted.where(rollups.c.start < query.until)
        if self._last is not None:
            return wanted.where(_before(start=self._last.start, name=self._last.name, id_=self._last.subscription_id))
        if query.resume is None:
            return wanted
        match query.grouping:
            case Grouping.NOTHING:
                return wanted.where(rollups.c.start < query.resume.start)
            case Grouping.SUBSCRIPTION:
                return wanted.where(_before(start=query.resume.start, name=OTHERS, id_=query.resume.group))
            case _:
                return wanted.where(_before(start=query.resume.start, name=query.resume.group))

    def _owner(self) -> ColumnElement[bool]:
        owner = self._wanted_owner()
        return rollups.c.subscription_id > EVERYBODY if owner is None else rollups.c.subscription_id == owner

    def _wanted_owner(self) -> str | None:
        """Whose rows; None: those of each subscription, for the caller may not see all of them."""
        query = self._query
        if query.subscription_id is not None:
            return query.subscription_id
        return EVERYBODY if query.libraries is None and query.grouping is not Grouping.SUBSCRIPTION else None

    def _concerns(self, key: Key) -> bool:
        query, owner = self._query, self._wanted_owner()
        return (
            key.dimension == self._dimension
            and key.start >= self._since
            and (query.until is None or key.start < query.until)
            and (key.subscription_id != EVERYBODY if owner is None else key.subscription_id == owner)
            and (query.resume is None or self._place(key) < (query.resume.start, query.resume.group))
        )

    def _place(self, key: Key) -> "_GroupPlace":
        return key.start, key.subscription_id if self._query.grouping is Grouping.SUBSCRIPTION else key.name

    def _add(self, key: Key, figures: Figures) -> None:
        if self._query.libraries is None or self._seen.get(key.subscription_id, False):
            self.groups.setdefault(self._place(key), Figures()).add(figures)

    async def _learn(self, ids: AbstractSet[str]) -> None:
        """Which of *ids* the caller may see: by their libraries, or those on their tombstones."""
        unknown = sorted(ids - self._seen.keys())
        if self._query.libraries is None or not unknown:
            return
        for table, column in ((tombstones, tombstones.c.subscription_id), (subscriptions, subscriptions.c.id)):
            wanted = select(column, table.c.libraries).where(column.in_(unknown))
            for id_, libraries in await self._connection.execute(wanted):
                self._seen[id_] = holds(self._query.libraries, libraries)


_GroupPlace = tuple[datetime, str]


def _before(*, start: datetime, name: str, id_: str | None = None) -> ColumnElement[bool]:
    """What comes after that place, since the order is a falling one."""
    columns = [rollups.c.start, rollups.c.name, rollups.c.subscription_id]
    given = [start, name] if id_ is None else [start, name, id_]
    columns = columns[: len(given)]
    return tuple_(*columns) < tuple_(*(literal(value, each.type) for each, value in zip(columns, given, strict=True)))
