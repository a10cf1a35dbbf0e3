"""Dead letters sent again: many rows, a thousand in each transaction.

dead letters in the order of their ids ─▶ those the caller may see ─▶ a fresh schedule, and one more for the count
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, bindparam, insert, or_, select, update
from typeid import TypeID

from gateway.keys import holds
from gateway.ports.desk import RedeliverQuery, ReplayRecord
from gateway.storage.connection import Connection
from gateway.storage.database import Database, Transaction
from gateway.storage.log import position
from gateway.storage.replay_records import replay_record
from gateway.storage.stretches import stretch_between
from gateway.storage.tables import DEAD, LIVE, deliveries, replays, subscriptions
from gateway.storage.types import is_of_type
from webhooks.deliveries import DeliveryStatus

ROWS_AT_ONCE = 1_000


def fresh_schedule(now: datetime) -> dict[str, Any]:
    """What a delivery becomes that is sent again from the start. Its attempts count on."""
    return {
        "status": DeliveryStatus.PENDING.value,
        "reason": None,
        "due_at": now,
        "settled_at": None,
        "schedule_start": deliveries.c.attempt_count,
        "first_attempt_at": None,
        "idle_before": timedelta(0),
    }


async def count_redeliverable(database: Database, query: RedeliverQuery) -> int:
    count, after = 0, ""
    async with database.reading() as connection:
        while batch := await _next(connection, query, after):
            ids, after = batch
            count += len(ids)
    return count


async def redeliver(database: Database, query: RedeliverQuery, *, now: datetime) -> ReplayRecord:
    """Each batch commits with its part of the count, so that one cut short says what it did."""
    replay_id = str(TypeID("rpl"))
    again = (
        update(deliveries)
        .where(deliveries.c.id == bindparam("delivery_id"), DEAD)
        .values(fresh_schedule(now) | {"replay_id": replay_id, "rank": LIVE, "forced": False})
    )

    async def begin(transaction: Transaction) -> None:
        row = {
            "id": replay_id,
            "kind": "redeliver",
            "subscription_id": query.subscription_id,
            "libraries": await _audience(transaction.connection, query),
            "created_at": now,
            "matched": 0,
        }
        await transaction.connection.execute(insert(replays), row)

    async def one_batch(transaction: Transaction) -> tuple[list[str], str] | None:
        batch = await _next(transaction.connection, query, after, for_update=True)
        if batch and batch[0]:
            ids = batch[0]
            await transaction.connection.execute(again, [{"delivery_id": id_} for id_ in ids])
            # Between two batches it may have looked finished.
            more = {"matched": replays.c.matched + len(ids), "created": replays.c.created + len(ids)}
            counted = update(replays).where(replays.c.id == replay_id).values(more | {"finished_at": None})
            await transaction.connection.execute(counted)
        return batch

    await database.write(begin)
    # By rising id, so that one which dies again meanwhile is not sent for ever.
    after = ""
    while batch := await database.write(one_batch):
        after = batch[1]
    async with database.reading() as connection:
        record = await replay_record(connection, replay_id)
    if record is None:
        raise LookupError(replay_id)
    return record


async def _next(
    connection: Connection, query: RedeliverQuery, after: str, *, for_update: bool = False
) -> tuple[list[str], str] | None:
    """The next dead letters of *query* after the id *after*, and the id to go on after; None at the end."""
    candidates = await _candidates(connection, query)
    if for_update:
        candidates = candidates.with_for_update(of=(deliveries, subscriptions))
    if query.ids is not None:
        named = sorted({id_ for id_ in query.ids if id_ > after})[:ROWS_AT_ONCE]
        if not named:
            return None
        rows = (await connection.execute(candidates.where(deliveries.c.id.in_(named)))).all()
        last = named[-1]
    else:
        rows = (await connection.execute(candidates.where(deliveries.c.id > after).limit(ROWS_AT_ONCE))).all()
        if not rows:
            return None
        last = rows[-1].id
    return [row.id for row in rows if holds(query.libraries, row.libraries)], last


async def _candidates(connection: Connection, query: RedeliverQuery) -> Select[Any]:
    """Dead letters whose event is in the log and whose subscription is there still, by rising id."""
    earliest = (await position(connection)).earliest
    stretch = await stretch_between(connection, query.since, query.until)
    candidates = (
        select(deliveries.c.id, subscriptions.c.libraries)
        .join(subscriptions, subscriptions.c.id == deliveries.c.subscription_id)
        .where(DEAD, deliveries.c.cursor >= max(earliest, stretch.first or 0))
        .order_by(deliveries.c.id)
    )
    if stretch.end is not None:
        candidates = candidates.where(deliveries.c.cursor < stretch.end)
    if query.subscription_id is not None:
        candidates = candidates.where(deliveries.c.subscription_id == query.subscription_id)
    if query.types is not None:
        candidates = candidates.where(or_(*(is_of_type(deliveries.c.type, name) for name in sorted(query.types))))
    return candidates


async def _audience(connection: Connection, query: RedeliverQuery) -> frozenset[str] | None:
    """Who may see it: whoever may see its subscription; of a list of ids, whoever holds what the caller holds."""
    if query.subscription_id is None:
        return query.libraries
    owner = select(subscriptions.c.libraries).where(subscriptions.c.id == query.subscription_id)
    found: Sequence[Any] = (await connection.execute(owner)).scalars().all()
    return found[0] if found else query.libraries
