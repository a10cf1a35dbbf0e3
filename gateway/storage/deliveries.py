"""Pending deliveries in SQL, as lanes read and settle them.

A lane asks in two steps, within one state of the database: which, by an index alone, with the size of each; and
then those that fit into memory, whole.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from sys import intern
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Row,
    Select,
    bindparam,
    func,
    literal,
    literal_column,
    select,
)

from gateway.events import Cursor, EventType, LoggedEvent
from gateway.storage.backlog import earliest_due
from gateway.storage.connection import Connection
from gateway.storage.database import Database, Transaction
from gateway.storage.fencing import in_force
from gateway.storage.rows import within
from gateway.storage.settling import settle
from gateway.storage.subscription_rows import endpoint_of, health_of
from gateway.storage.tables import FORCED, LIVE, PENDING, REPLAYED, deliveries, events, lanes, replays, subscriptions
from webhooks.deliveries import Delivery, Settlement
from webhooks.endpoints import Endpoint, Health
from webhooks.ports import Due

BODY_BYTES = 8 * 2**20
"""One answer holds about this much of events' data at most, but always one delivery."""
READS_AT_ONCE = 2
"""Of all lanes together: a thousand that wake at once must not keep everybody else from reading."""


class SqlDeliveryStore:
    """`webhooks.ports.DeliveryStore` over a `Database`.

    *retry_schedule*, in seconds, is for the subscriptions that set none of their own. *settled* is told of what has
    been stored.
    """

    def __init__(
        self,
        database: Database,
        *,
        retry_schedule: tuple[float, ...],
        settled: Callable[[Sequence[Settlement]], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._retry_schedule = retry_schedule
        self._settled = settled
        self._turns = asyncio.Semaphore(READS_AT_ONCE)

    async def endpoint(self, endpoint_id: str) -> tuple[Endpoint, Health] | None:
        async with self._turns, self._database.reading() as connection:
            row = (await connection.execute(_ENDPOINT, {"endpoint_id": endpoint_id})).one_or_none()
        if row is None:
            return None
        database = self._database
        endpoint = endpoint_of(row, database.seal, retry_schedule=self._retry_schedule, now=database.clock())
        return endpoint, health_of(row)

    async def due(self, endpoint_id: str, *, now: datetime, limit: int, replayed: bool = False) -> Due:
        asked = {"endpoint_id": endpoint_id, "rank": REPLAYED if replayed else LIVE}
        async with self._turns, self._database.reading() as connection:
            forced = (await connection.execute(_FORCED, asked | {"most": limit})).all()
            # One more than is asked for tells when to look again, be it due already or not.
            waiting = (await connection.execute(_WAITING, asked | {"most": limit + 1})).all()
            ready = {row.id: row.size for row in (*forced, *waiting) if row.due_at <= now}
            chosen = _fitting(ready.items(), limit)
            found = await _whole(connection, chosen)
        left_out = [row.due_at for row in (*forced, *waiting) if row.id not in found]
        return Due(deliveries=tuple(found.values()), next_due_at=min(left_out, default=None))

    async def queue(
        self, endpoint_id: str, *, limit: int, per_library: int = 1, replayed: bool = False
    ) -> tuple[Delivery, ...]:
        rank = REPLAYED if replayed else LIVE
        asked = {"endpoint_id": endpoint_id, "rank": rank, "most": limit, "per_library": per_library}
        async with self._turns, self._database.reading() as connection:
            rows = (await connection.execute(_QUEUE, asked)).all()
            # The order among libraries is that of their heads; within one it is that of the log.
            rows = sorted(rows, key=lambda row: (row.head_due_at, row.head_cursor, row.head_id, row.cursor, row.id))
            chosen = _fitting([(row.id, row.size) for row in rows], limit)
            return tuple((await _whole(connection, chosen)).values())

    async def lanes(self) -> Mapping[str, datetime]:
        async with self._database.reading() as connection:
            return await earliest_due(connection)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        async def work(transaction: Transaction) -> Sequence[Settlement]:
            stored = await in_force(transaction.connection, settlements)
            await settle(transaction, stored, now=self._database.clock())
            return stored

        if settlements:
            # What a power failure takes back is sent again: receivers know it by its id.
            self._settled(await self._database.write(work, durable=False, can_wait=True))


def _by_due_time(condition: ColumnElement[bool]) -> Select[Any]:
    return (
        select(deliveries.c.id, deliveries.c.due_at, func.length(events.c.data).label("size"))
        .join(events, events.c.cursor == deliveries.c.cursor)
        .where(
            deliveries.c.subscription_id == bindparam("endpoint_id"), deliveries.c.rank == bindparam("rank"), condition
        )
        .order_by(deliveries.c.due_at, deliveries.c.cursor, deliveries.c.id)
        .limit(bindparam("most"))
    )


def _by_library() -> Select[Any]:
    """Of each library with pending deliveries the first `per_library`; those whose first is due first.

    Steps from library to library in the index, so that its cost is that of the libraries, however many deliveries
    each has waiting.
    """
    some = deliveries.alias("some")
    libraries = select(func.min(some.c.library_id).label("id")).where(*_pending(some)).cte("libraries", recursive=True)
    after = deliveries.alias("after")
    following = select(func.min(after.c.library_id)).where(*_pending(after), after.c.library_id > libraries.c.id)
    libraries = libraries.union_all(select(following.scalar_subquery()).where(libraries.c.id.is_not(None)))
    head = deliveries.alias("head")
    heads = (
        select(head.c.library_id, head.c.due_at, head.c.cursor, head.c.id)
        .select_from(
            libraries.join(head, head.c.id == _leading(libraries.c.id, "leader", literal(1)).scalar_subquery())
        )
        .order_by(head.c.due_at, head.c.cursor, head.c.id)
        .limit(bindparam("most"))
        .subquery("heads")
    )
    leading = _leading(heads.c.library_id, "follower", bindparam("per_library"))
    return select(
        deliveries.c.id,
        deliveries.c.cursor,
        heads.c.due_at.label("head_due_at"),
        heads.c.cursor.label("head_cursor"),
        heads.c.id.label("head_id"),
        func.length(events.c.data).label("size"),
    ).select_from(
        heads.join(deliveries, deliveries.c.id.in_(leading)).join(events, events.c.cursor == deliveries.c.cursor)
    )


def _leading(library_id: ColumnElement[str], name: str, count: ColumnElement[int]) -> Select[Any]:
    """The ids of a library's first pending deliveries."""
    one = deliveries.alias(name)
    return (
        select(one.c.id)
        .where(*_pending(one), one.c.library_id == library_id)
        .order_by(one.c.cursor, one.c.id)
        .limit(count)
        .correlate_except(one)
    )


def _pending(table: FromClause) -> tuple[ColumnElement[bool], ...]:
    """That a row of *table*, which is `deliveries` by another name, is a pending one of the line in question."""
    return (
        table.c.subscription_id == bindparam("endpoint_id"),
        table.c.rank == bindparam("rank"),
        table.c.status == literal_column("'pending'"),
    )


# Made once: to put them together takes longer than to run them.
_FORCED = _by_due_time(FORCED)
_WAITING = _by_due_time(PENDING)
_QUEUE = _by_library()
_WHOLE = (
    select(
        deliveries,
        events.c.data,
        events.c.timestamp.label("event_time"),
        events.c.accepted_at,
        events.c.traceparent,
        replays.c.max_per_second,
    )
    .join(events, events.c.cursor == deliveries.c.cursor)
    .outerjoin(replays, replays.c.id == deliveries.c.replay_id)
    .where(deliveries.c.id.in_(bindparam("ids", expanding=True)))
)
_ENDPOINT = (
    select(subscriptions, *(column for column in lanes.c if column is not lanes.c.subscription_id))
    .outerjoin(lanes, lanes.c.subscription_id == subscriptions.c.id)
    .where(subscriptions.c.id == bindparam("endpoint_id"))
)


def _fitting(sizes: Iterable[tuple[str, int]], limit: int) -> list[str]:
    """The first ids that fit into memory together, at most *limit*, but one at least if there is any."""
    first = list(sizes)[:limit]
    last = within(first, BODY_BYTES)
    ids = [id_ for id_, _ in first]
    return [] if last is None else ids[: ids.index(last) + 1]


async def _whole(connection: Connection, ids: Sequence[str]) -> dict[str, Delivery]:
    """The deliveries of *ids* with what is sent for them, in the same order."""
    if not ids:
        return {}
    found = {row.id: _delivery(row) for row in await connection.execute(_WHOLE, {"ids": ids})}
    return {id_: found[id_] for id_ in ids}


def _delivery(row: Row[Any]) -> Delivery:
    event = LoggedEvent(
        cursor=Cursor(row.cursor),
        id=row.event_id,
        type=EventType(row.type),
        library_id=row.library_id,
        timestamp=row.event_time,
        accepted_at=row.accepted_at,
        data=row.data,
    )
    return Delivery(
        id=row.id,
        # Thousands wait in lanes that have these in common.
        endpoint_id=intern(row.subscription_id),
        event_id=row.event_id,
        event_type=intern(row.type),
        library_id=intern(row.library_id),
        cursor=row.cursor,
        body=event.body,
        event_time=row.event_time,
        accepted_at=row.accepted_at,
        traceparent=row.traceparent,
        created_at=row.created_at,
        due_at=row.due_at,
        attempt_count=row.attempt_count,
        schedule_start=row.schedule_start,
        first_attempt_at=row.first_attempt_at,
        idle_before=row.idle_before,
        forced=row.forced,
        replay_id=row.replay_id,
        replayed=row.rank == REPLAYED,
        replay_per_second=row.max_per_second,
    )
