"""Replays in SQL: which events of a stretch they are of, and their deliveries together with their cursor."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, exists, func, insert, literal, select, update
from typeid import TypeID

from gateway.errors import Conflict
from gateway.events import Cursor, LoggedEvent
from gateway.filters import Filter
from gateway.listing import EXAMINED_ROWS
from gateway.ports.replays import Counted, Found, Replay, Selection, Stretch, Unfinished
from gateway.storage.connection import Connection
from gateway.storage.database import Database, Transaction
from gateway.storage.fanout import fanout_cursor, new_delivery, row_of_delivery
from gateway.storage.history import of_types, worth_reading
from gateway.storage.log import position
from gateway.storage.replay_records import finish_replays, stop_replay
from gateway.storage.rows import logged, within
from gateway.storage.stretches import stretch_between
from gateway.storage.tables import PENDING, REPLAYED, UNFINISHED, deliveries, events, replays, subscriptions
from webhooks.deliveries import Delivery, DeliveryStatus
from webhooks.endpoints import Status

FOUND_BYTES = 2**20
MOST_COUNTED = 10_001
"""Deliveries of one replay that are counted at a look; beyond, it is enough to know that they are many."""
_IDS_AT_ONCE = 500  # parameters in one statement


class SqlReplayStore:
    """`gateway.replays.ReplayStore` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def stretch(self, since: datetime, until: datetime | None) -> Stretch:
        async with self._database.reading() as connection:
            where = await position(connection)
            between = await stretch_between(connection, since, until)
        first = int(where.earliest) if between.first is None else between.first
        last = int(where.head) if between.end is None else between.end - 1
        return Stretch(after=Cursor(first - 1), last=Cursor(max(first - 1, last)))

    async def fanned_out(self) -> Cursor:
        async with self._database.reading() as connection:
            return await fanout_cursor(connection)

    async def count(self, selection: Selection, stretch: Stretch) -> Counted:
        async with self._database.reading() as connection:
            first, high = await _within_reach(connection, stretch)
            matched = select(func.count()).where(events.c.cursor.between(first, high), _chosen(selection))
            return Counted(matched=(await connection.execute(matched)).scalar_one(), last=Cursor(high))

    async def find(self, selection: Selection, stretch: Stretch, *, limit: int) -> Found:
        async with self._database.reading() as connection:
            first, high = await _within_reach(connection, stretch)
            chosen = _chosen(selection)
            sizes = (
                select(events.c.cursor, func.length(events.c.data))
                .where(events.c.cursor.between(first, high), chosen)
                .order_by(events.c.cursor)
                .limit(limit)
            )
            found = (await connection.execute(sizes)).all()
            reached = within(found, FOUND_BYTES)
            if reached is None:
                return Found(events=(), last=Cursor(high))
            page = select(events).where(events.c.cursor.between(first, reached), chosen).order_by(events.c.cursor)
            is_whole = len(found) < limit and reached == found[-1][0]
            rows = await connection.execute(page)
            return Found(events=tuple(map(logged, rows)), last=Cursor(high if is_whole else reached))

    async def start(
        self,
        selection: Selection,
        stretch: Stretch,
        *,
        matched: int,
        max_per_second: float | None,
        now: datetime,
        at_most: int,
    ) -> str | None:
        replay_id = str(TypeID("rpl"))
        row = {
            "id": replay_id,
            "kind": "replay",
            "subscription_id": selection.subscription_id,
            "libraries": selection.libraries,
            "created_at": now,
            "matched": matched,
            "own_filter": _json(selection.own),
            "library_ids": selection.asked.library_ids,
            "types": selection.asked.types,
            "undelivered": selection.undelivered,
            "max_per_second": max_per_second,
            "cursor": stretch.after,
            "last": stretch.last,
            "created": 0,
        }

        async def work(transaction: Transaction) -> bool:
            connection = transaction.connection
            if not await _is_there(connection, selection.subscription_id, alone=True):
                return False
            running = select(func.count()).where(
                replays.c.subscription_id == selection.subscription_id, UNFINISHED, replays.c.last.is_not(None)
            )
            if (await connection.execute(running)).scalar_one() >= at_most:
                raise Conflict(f"this subscription has {at_most} replays under way, as many as it may have")
            await connection.execute(insert(replays), row)
            return True

        return replay_id if await self._database.write(work) else None

    async def unfinished(self) -> Unfinished:
        async with self._database.reading() as connection:
            fanned_out = await fanout_cursor(connection)
            rows = (await connection.execute(_UNFINISHED)).all()
            return Unfinished(replays=tuple(map(_replay_of, rows)), fanned_out=fanned_out)

    async def make(self, replay: Replay, events: Sequence[LoggedEvent], *, to: Cursor) -> Sequence[Delivery] | None:
        selection, stretch = replay.selection, replay.stretch
        if selection is None or stretch is None:
            raise ValueError(f"{replay.id} is a redelivery: there is nothing to make")
        # Made before the writer is taken, as the fan-out does.
        now = self._database.clock()
        made = [
            msgspec.structs.replace(
                new_delivery(event, selection.subscription_id, now),
                replayed=True,
                replay_id=replay.id,
                replay_per_second=replay.max_per_second,
            )
            for event in events
        ]

        async def work(transaction: Transaction) -> list[Delivery] | None:
            connection = transaction.connection
            if not await _is_there(connection, selection.subscription_id):
                return None
            left_out = await _served(connection, selection, made) if selection.undelivered else frozenset[int]()
            earliest = (await position(connection)).earliest
            kept = [one for one in made if one.cursor >= earliest and one.cursor not in left_out]
            moved = await connection.execute(
                update(replays)
                .where(
                    replays.c.id == replay.id,
                    replays.c.cursor == stretch.after,
                    replays.c.stopped_at.is_(None),
                    UNFINISHED,
                )
                .values(cursor=to, created=replays.c.created + len(kept))
            )
            if not moved.rowcount:
                return None
            if kept:
                rank = {"rank": REPLAYED, "replay_id": replay.id}
                await connection.execute(insert(deliveries), [row_of_delivery(one) | rank for one in kept])
            return kept

        # What a power failure takes back is made again: the cursor goes back with it.
        return await self._database.write(work, durable=False)

    async def stop(self, replay_id: str) -> frozenset[str] | None:
        return await stop_replay(self._database, replay_id)

    async def finish(self, replay_ids: Sequence[str]) -> None:
        async def work(transaction: Transaction) -> None:
            for start in range(0, len(replay_ids), _IDS_AT_ONCE):
                some = replay_ids[start : start + _IDS_AT_ONCE]
                await finish_replays(transaction.connection, some, now=self._database.clock())

        await self._database.write(work, durable=False)


async def _within_reach(connection: Connection, stretch: Stretch) -> tuple[int, int]:
    """The first and the last place of *stretch* that one read looks at; the first is beyond the last if it is empty."""
    first = max(stretch.after + 1, int((await position(connection)).earliest))
    return first, min(int(stretch.last), first + EXAMINED_ROWS - 1)


async def _is_there(connection: Connection, subscription_id: str, *, alone: bool = False) -> bool:
    """Whether the subscription is there, and stays so until the transaction ends; with *alone*, held by no other."""
    one = select(subscriptions.c.id).where(subscriptions.c.id == subscription_id).with_for_update(read=not alone)
    return await connection.scalar(one) is not None


def _chosen(selection: Selection) -> ColumnElement[bool]:
    """What *selection* may choose; if it is plain, what it does choose."""
    chosen: ColumnElement[bool] = worth_reading(selection.matcher())
    if selection.asked.library_ids is not None:
        chosen &= events.c.library_id.in_(sorted(selection.asked.library_ids))
    if selection.asked.types is not None:
        chosen &= of_types(selection.asked)
    if selection.undelivered:
        chosen &= ~exists().where(
            deliveries.c.event_id == events.c.id,
            deliveries.c.cursor == events.c.cursor,
            _is_here(selection),
            deliveries.c.status.in_(_SERVED),
        )
    return chosen


def _is_here(selection: Selection) -> ColumnElement[bool]:
    """That a delivery of an event is to the subscription: put so that no engine goes by this, for an event has few
    deliveries and a subscription may have millions."""
    return deliveries.c.subscription_id.concat("") == selection.subscription_id


_SERVED = (DeliveryStatus.PENDING.value, DeliveryStatus.DELIVERED.value)


async def _served(connection: Connection, selection: Selection, made: Sequence[Delivery]) -> frozenset[int]:
    """The places of those events that are delivered to the subscription, or are going to be."""
    found: set[int] = set()
    for start in range(0, len(made), _IDS_AT_ONCE):
        some = made[start : start + _IDS_AT_ONCE]
        served = select(deliveries.c.cursor).where(
            deliveries.c.event_id.in_([one.event_id for one in some]),
            _is_here(selection),
            deliveries.c.status.in_(_SERVED),
        )
        found.update((await connection.execute(served)).scalars())
    return frozenset(found)


def _few(*conditions: ColumnElement[bool]) -> ColumnElement[int]:
    """How many deliveries of the replay in question there are, up to a bound."""
    some = (
        select(literal(1).label("one"))
        .where(deliveries.c.replay_id == replays.c.id, PENDING, *conditions)
        .correlate(replays)
        .limit(MOST_COUNTED)
        .subquery()
    )
    return select(func.count()).select_from(some).scalar_subquery()


_UNFINISHED = (
    select(
        replays,
        subscriptions.c.id.label("owner"),
        subscriptions.c.status.label("owner_status"),
        _few(deliveries.c.attempt_count == 0).label("untried"),
        _few().label("pending"),
    )
    .outerjoin(subscriptions, subscriptions.c.id == replays.c.subscription_id)
    .where(UNFINISHED)
    .order_by(replays.c.subscription_id, replays.c.id)
)


def _replay_of(row: Row[Any]) -> Replay:
    replay = Replay(
        id=row.id,
        subscription_id=row.subscription_id,
        is_stopped=row.stopped_at is not None,
        is_active=row.owner_status == Status.ACTIVE.value,
        is_orphaned=row.owner is None and row.subscription_id is not None,
        untried=row.untried,
        pending=row.pending,
    )
    if row.last is None:
        return replay
    return replace(
        replay,
        selection=Selection(
            subscription_id=row.subscription_id,
            own=_filter(row.own_filter),
            libraries=row.libraries,
            asked=Filter(library_ids=row.library_ids, types=row.types),
            undelivered=row.undelivered,
        ),
        stretch=Stretch(after=Cursor(row.cursor), last=Cursor(row.last)),
        max_per_second=row.max_per_second,
    )


def _json(filter_: Filter) -> dict[str, Any]:
    return {
        "library_ids": None if filter_.library_ids is None else sorted(filter_.library_ids),
        "types": None if filter_.types is None else sorted(filter_.types),
        "filter": filter_.expression,
    }


def _filter(value: dict[str, Any]) -> Filter:
    names = [None if value[name] is None else frozenset(value[name]) for name in ("library_ids", "types")]
    return Filter(library_ids=names[0], types=names[1], expression=value["filter"])
