"""Pending deliveries in SQL, as lanes read and settle them.

A lane asks in two steps, within one state of the database: which, by an index alone, with the size of each; and
then those that fit into memory, whole.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.events import Cursor, EventType, LoggedEvent
from gateway.storage.database import Database, Transaction
from gateway.storage.rows import within
from gateway.storage.settling import settle
from gateway.storage.subscription_rows import endpoint_of, health_of
from gateway.storage.tables import FORCED, PENDING, deliveries, events, lanes, pending_of, subscriptions
from webhooks.deliveries import Delivery, Settlement
from webhooks.endpoints import Endpoint, Health, Status
from webhooks.ports import Due

BODY_BYTES = 8 * 2**20
"""One answer holds about this much of events' data at most, but always one delivery."""


class SqlDeliveryStore:
    """`webhooks.ports.DeliveryStore` over a `Database`.

    *retry_schedule*, in seconds, is for the subscriptions that set none of their own.
    """

    def __init__(self, database: Database, *, retry_schedule: tuple[float, ...]) -> None:
        self._database = database
        self._retry_schedule = retry_schedule

    async def endpoint(self, endpoint_id: str) -> tuple[Endpoint, Health] | None:
        joined = (
            select(subscriptions, *(column for column in lanes.c if column is not lanes.c.subscription_id))
            .outerjoin(lanes, lanes.c.subscription_id == subscriptions.c.id)
            .where(subscriptions.c.id == endpoint_id)
        )
        async with self._database.reading() as connection:
            row = (await connection.execute(joined)).one_or_none()
        if row is None:
            return None
        return endpoint_of(row, retry_schedule=self._retry_schedule, now=self._database.clock()), health_of(row)

    async def due(self, endpoint_id: str, *, now: datetime, limit: int) -> Due:
        async with self._database.reading() as connection:
            forced = (await connection.execute(_by_due_time(endpoint_id, FORCED).limit(limit))).all()
            # One more than is asked for tells when to look again, be it due already or not.
            waiting = (await connection.execute(_by_due_time(endpoint_id, PENDING).limit(limit + 1))).all()
            ready = {row.id: row.size for row in (*forced, *waiting) if row.due_at <= now}
            chosen = _fitting(ready.items(), limit)
            found = await _whole(connection, chosen)
        left_out = [row.due_at for row in (*forced, *waiting) if row.id not in found]
        return Due(deliveries=tuple(found.values()), next_due_at=min(left_out, default=None))

    async def queue(self, endpoint_id: str, *, limit: int, per_library: int = 1) -> tuple[Delivery, ...]:
        async with self._database.reading() as connection:
            rows = (await connection.execute(_by_library(endpoint_id, limit, per_library))).all()
            # The order among libraries is that of their heads; within one it is that of the log.
            rows = sorted(rows, key=lambda row: (row.head_due_at, row.head_cursor, row.head_id, row.cursor, row.id))
            chosen = _fitting([(row.id, row.size) for row in rows], limit)
            return tuple((await _whole(connection, chosen)).values())

    async def lanes(self) -> Mapping[str, datetime]:
        earliest = (
            select(deliveries.c.due_at)
            .where(deliveries.c.subscription_id == subscriptions.c.id, PENDING)
            .order_by(deliveries.c.due_at)
            .limit(1)
            .scalar_subquery()
        )
        active = select(subscriptions.c.id, earliest).where(subscriptions.c.status == Status.ACTIVE.value)
        async with self._database.reading() as connection:
            rows = (await connection.execute(active)).all()
        return {id_: due_at for id_, due_at in rows if due_at is not None}

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        async def work(transaction: Transaction) -> None:
            await settle(transaction, settlements, now=self._database.clock())

        if settlements:
            # What a power failure takes back is sent again: receivers know it by its id.
            await self._database.write(work, durable=False)


def _by_due_time(endpoint_id: str, condition: ColumnElement[bool]) -> Select[Any]:
    return (
        select(deliveries.c.id, deliveries.c.due_at, func.length(events.c.data).label("size"))
        .join(events, events.c.cursor == deliveries.c.cursor)
        .where(deliveries.c.subscription_id == endpoint_id, condition)
        .order_by(deliveries.c.due_at, deliveries.c.cursor, deliveries.c.id)
    )


def _by_library(endpoint_id: str, limit: int, per_library: int) -> Select[Any]:
    """Of each library with pending deliveries the first *per_library*; those whose first is due first.

    Steps from library to library in the index, so that its cost is that of the libraries, however many deliveries
    each has waiting.
    """
    some = deliveries.alias("some")
    first = select(func.min(some.c.library_id).label("id")).where(*pending_of(some, endpoint_id))
    libraries = first.cte("libraries", recursive=True)
    after = deliveries.alias("after")
    following = (
        select(func.min(after.c.library_id))
        .where(*pending_of(after, endpoint_id), after.c.library_id > libraries.c.id)
        .scalar_subquery()
    )
    libraries = libraries.union_all(select(following).where(libraries.c.id.is_not(None)))

    def leading(count: int, library_id: ColumnElement[str], name: str) -> Select[Any]:
        one = deliveries.alias(name)
        return (
            select(one.c.id)
            .where(*pending_of(one, endpoint_id), one.c.library_id == library_id)
            .order_by(one.c.cursor, one.c.id)
            .limit(count)
            .correlate_except(one)
        )

    head = deliveries.alias("head")
    heads = (
        select(head.c.library_id, head.c.due_at, head.c.cursor, head.c.id)
        .select_from(libraries.join(head, head.c.id == leading(1, libraries.c.id, "leader").scalar_subquery()))
        .order_by(head.c.due_at, head.c.cursor, head.c.id)
        .limit(limit)
        .subquery("heads")
    )
    return select(
        deliveries.c.id,
        deliveries.c.cursor,
        heads.c.due_at.label("head_due_at"),
        heads.c.cursor.label("head_cursor"),
        heads.c.id.label("head_id"),
        func.length(events.c.data).label("size"),
    ).select_from(
        heads.join(deliveries, deliveries.c.id.in_(leading(per_library, heads.c.library_id, "follower"))).join(
            events, events.c.cursor == deliveries.c.cursor
        )
    )


def _fitting(sizes: Iterable[tuple[str, int]], limit: int) -> list[str]:
    """The first ids that fit into memory together, at most *limit*, but one at least if there is any."""
    first = list(sizes)[:limit]
    last = within(first, BODY_BYTES)
    ids = [id_ for id_, _ in first]
    return [] if last is None else ids[: ids.index(last) + 1]


async def _whole(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, Delivery]:
    """The deliveries of *ids* with what is sent for them, in the same order."""
    if not ids:
        return {}
    joined = (
        select(
            deliveries,
            events.c.data,
            events.c.timestamp.label("event_time"),
            events.c.accepted_at,
            events.c.traceparent,
        )
        .join(events, events.c.cursor == deliveries.c.cursor)
        .where(deliveries.c.id.in_(ids))
    )
    found = {row.id: _delivery(row) for row in await connection.execute(joined)}
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
        endpoint_id=row.subscription_id,
        event_id=row.event_id,
        event_type=row.type,
        library_id=row.library_id,
        cursor=row.cursor,
        body=event.body,
        event_time=row.event_time,
        traceparent=row.traceparent,
        created_at=row.created_at,
        due_at=row.due_at,
        attempt_count=row.attempt_count,
        schedule_start=row.schedule_start,
        first_attempt_at=row.first_attempt_at,
        idle_before=row.idle_before,
        forced=row.forced,
        replay_id=row.replay_id,
    )
