"""What is too old leaves, a little in each transaction.

Two processes that do it at once harm nothing: what the other has taken is not found, and the log's earliest place only
rises. Deliveries are locked before the log, as settling does.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import takewhile
from typing import Any

from sqlalchemy import Row, Select, delete, exists, func, or_, select, tuple_, update

from gateway.events import GATEWAY_PREFIX, Cursor, Draft
from gateway.ports.retention import Dropped
from gateway.storage import notices
from gateway.storage.connection import Connection
from gateway.storage.database import Database, Transaction
from gateway.storage.fanout import fanout_cursor
from gateway.storage.log import hold, position
from gateway.storage.rows import within
from gateway.storage.tables import (
    OWING,
    PENDING,
    UNFINISHED,
    attempts,
    deliveries,
    delivery_counts,
    events,
    log,
    replays,
    subscriptions,
    tombstones,
)
from webhooks.deliveries import DeliveryStatus
from webhooks.verdicts import Reason


class SqlRetentionStore:
    """`gateway.ports.retention.RetentionStore` over a `Database`. Nothing of it has to be durable: it is done again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def drop_events(
        self, *, before: datetime, passed: Cursor, limit: int, max_bytes: int, most_owed: int
    ) -> Dropped:
        async def work(transaction: Transaction) -> Dropped:
            connection = transaction.connection
            earliest = (await position(connection)).earliest
            passed_by_all = min(passed, await fanout_cursor(connection))
            leaving = await _leaving(connection, earliest, passed_by_all, before, limit, max_bytes)
            until = leaving[-1].cursor if leaving else earliest - 1
            owed = await _owed(connection, until, most_owed + 1)
            if is_cut := len(owed) > most_owed:
                until = owed.pop().cursor - 1
            await _expire(transaction, owed, now=self._database.clock())
            gone = [row for row in leaving if row.cursor <= until]
            if gone:
                await hold(connection)  # before the events: who tells of a death holds it already
                await connection.execute(delete(events).where(events.c.cursor <= until))
                begins = {"earliest": until + 1, "dropped_until": gone[-1].accepted_at}
                await connection.execute(update(log).where(log.c.earliest <= until).values(begins))
            return Dropped(
                events=len(gone),
                owing=frozenset(row.subscription_id for row in owed),
                more=is_cut or bool(gone),
            )

        return await self._database.write(work, durable=False, can_wait=True)

    async def drop_attempts(self, *, before: datetime, limit: int) -> int:
        until = await self._database.turn_days(before=before)
        key = tuple_(attempts.c.delivery_id, attempts.c.number)
        old = (
            select(attempts.c.delivery_id, attempts.c.number)
            .where(attempts.c.started_at < until)
            .order_by(attempts.c.started_at)
            .limit(limit)
        )

        async def work(transaction: Transaction) -> int:
            return (
                await transaction.connection.execute(
                    delete(attempts).where(key.in_(old), attempts.c.started_at < until)
                )
            ).rowcount

        return await self._database.write(work, durable=False, can_wait=True)

    async def drop_deliveries(self, *, before: datetime, limit: int) -> int:
        is_old = deliveries.c.settled_at < before
        some = select(deliveries.c.id).where(is_old).order_by(deliveries.c.settled_at).limit(limit).with_for_update()

        async def work(transaction: Transaction) -> int:
            ids = (await transaction.connection.execute(some)).scalars().all()
            if ids:
                await transaction.connection.execute(
                    delete(attempts).where(attempts.c.delivery_id.in_(ids), attempts.c.started_at < before)
                )
                await transaction.connection.execute(delete(deliveries).where(deliveries.c.id.in_(ids)))
            return len(ids)

        return await self._database.write(work, durable=False, can_wait=True)

    async def drop_remains(self, *, before: datetime, limit: int) -> int:
        async def work(transaction: Transaction) -> int:
            connection = transaction.connection
            earliest = (await position(connection)).earliest
            made = (
                select(replays.c.id)
                .where(
                    replays.c.created_at < before,
                    or_(replays.c.kind != "replay", ~UNFINISHED),
                    ~exists().where(deliveries.c.replay_id == replays.c.id),
                )
                .order_by(replays.c.created_at)
                .limit(limit)
            )
            deleted = (
                select(tombstones.c.subscription_id)
                .where(
                    tombstones.c.cursor < earliest,
                    ~OWING,
                    ~exists().where(deliveries.c.subscription_id == tombstones.c.subscription_id),
                )
                .order_by(tombstones.c.cursor)
                .limit(limit)
            )
            dropped = await connection.execute(delete(replays).where(replays.c.id.in_(made)))
            ids = (await connection.execute(deleted)).scalars().all()
            if ids:
                for table in (delivery_counts, tombstones):
                    await connection.execute(delete(table).where(table.c.subscription_id.in_(ids)))
            return max(dropped.rowcount, len(ids))

        return await self._database.write(work, durable=False, can_wait=True)


async def _leaving(
    connection: Connection, earliest: int, passed: int, before: datetime, limit: int, max_bytes: int
) -> list[Row[Any]]:
    """The first events of the log that may go (`cursor`, `accepted_at`), as many as one batch takes."""
    # Mostly none is old, which one row tells; and each row that is read in a thread may wait for the interpreter.
    oldest = await connection.scalar(select(events.c.accepted_at).where(events.c.cursor == earliest))
    if oldest is None or oldest >= before:
        return []
    first: Select[Any] = (
        select(events.c.cursor, events.c.accepted_at, func.length(events.c.data).label("size"))
        .where(events.c.cursor >= earliest, events.c.cursor <= passed)
        .order_by(events.c.cursor)
        .limit(limit)
    )
    rows = (await connection.execute(first)).all()
    # Times rise with cursors: to ask SQL for old ones would make it look through all that are not.
    old = list(takewhile(lambda row: row.accepted_at < before, rows))
    last = within([(row.cursor, row.size) for row in old], max_bytes)
    return [] if last is None else [row for row in old if row.cursor <= last]


async def _owed(connection: Connection, until: int, limit: int) -> list[Row[Any]]:
    """The first pending deliveries of events up to *until*, each with its subscription's libraries, if there is one."""
    columns = [
        deliveries.c[name]
        for name in ("id", "subscription_id", "cursor", "event_id", "type", "library_id", "attempt_count")
    ]
    pending: Select[Any] = (
        select(*columns, subscriptions.c.libraries, subscriptions.c.id.is_not(None).label("is_subscribed"))
        .outerjoin(subscriptions, subscriptions.c.id == deliveries.c.subscription_id)
        .where(PENDING, deliveries.c.cursor <= until)
        .order_by(deliveries.c.cursor)
        .limit(limit)
        .with_for_update(of=deliveries)
    )
    return list((await connection.execute(pending)).all())


async def _expire(transaction: Transaction, owed: Sequence[Row[Any]], *, now: datetime) -> None:
    if not owed:
        return
    dead = {
        "status": DeliveryStatus.DEAD.value,
        "reason": Reason.EXPIRED.value,
        "settled_at": now,
        "forced": False,
    }
    these = deliveries.c.id.in_([row.id for row in owed])
    await transaction.connection.execute(update(deliveries).where(these, PENDING).values(dead))
    drafts = [_death(row) for row in owed if row.is_subscribed and not row.type.startswith(GATEWAY_PREFIX)]
    if drafts:
        await notices.tell(transaction, *drafts, now=now)


def _death(row: Row[Any]) -> Draft:
    return notices.delivery_dead(
        Reason.EXPIRED,
        delivery_id=row.id,
        subscription_id=row.subscription_id,
        event_id=row.event_id,
        event_type=row.type,
        event_library_id=row.library_id,
        attempt_count=row.attempt_count,
        last=None,
        audience=row.libraries,
    )
