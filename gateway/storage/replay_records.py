"""Replays and redeliveries as people see them, and how one is called off."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, case, exists, func, literal, or_, select, update

from gateway.ports.desk import ReplayRecord
from gateway.storage.columns import Moment
from gateway.storage.connection import Connection
from gateway.storage.database import Database, Transaction
from gateway.storage.tables import PENDING, UNFINISHED, deliveries, replays, subscriptions
from webhooks.deliveries import DeliveryStatus
from webhooks.verdicts import Reason

ROWS_AT_ONCE = 1_000


def cancelled(now: datetime) -> dict[str, Any]:
    """What a delivery becomes when a person calls it off."""
    return {
        "status": DeliveryStatus.CANCELLED.value,
        "reason": Reason.CANCELLED.value,
        "settled_at": now,
        "forced": False,
    }


async def replay_record(connection: Connection, replay_id: str) -> ReplayRecord | None:
    row = (await connection.execute(select(replays).where(replays.c.id == replay_id))).one_or_none()
    if row is None:
        return None
    counted = (
        select(deliveries.c.status, func.count())
        .where(deliveries.c.replay_id == replay_id)
        .group_by(deliveries.c.status)
    )
    return ReplayRecord(
        id=row.id,
        kind=row.kind,
        subscription_id=row.subscription_id,
        libraries=row.libraries,
        created_at=row.created_at,
        matched=row.matched,
        created=row.created,
        by_status=dict((await connection.execute(counted)).all()),
        status=_status(row),
        finished_at=row.finished_at,
    )


async def stop_replay(database: Database, replay_id: str) -> frozenset[str] | None:
    """See `gateway.replays.ReplayStore.stop`. Some at a time: should it be cut short, its runner ends it."""
    some = (
        select(deliveries.c.id, deliveries.c.subscription_id)
        .where(deliveries.c.replay_id == replay_id, PENDING)
        .limit(ROWS_AT_ONCE)
        .with_for_update()
    )

    async def one_batch(transaction: Transaction) -> list[str] | None:
        connection, now = transaction.connection, database.clock()
        if await connection.scalar(select(replays.c.id).where(replays.c.id == replay_id)) is None:
            return None
        running = update(replays).where(replays.c.id == replay_id, UNFINISHED, replays.c.stopped_at.is_(None))
        await connection.execute(running.values(stopped_at=now))
        rows = (await connection.execute(some)).all()
        if rows:
            called_off = update(deliveries).where(deliveries.c.id.in_([row.id for row in rows]))
            await connection.execute(called_off.values(cancelled(now)))
        if len(rows) < ROWS_AT_ONCE:
            await finish_replays(connection, [replay_id], now=now)
        return [row.subscription_id for row in rows]

    owed: set[str] = set()
    while batch := await database.write(one_batch):
        owed.update(batch)
        if len(batch) < ROWS_AT_ONCE:
            break
    return None if batch is None else frozenset(owed)


async def finish_replays(connection: Connection, replay_ids: Sequence[str], *, now: datetime) -> None:
    """See `gateway.replays.ReplayStore.finish`."""
    these = replays.c.id.in_(replay_ids)
    # Who adds to one holds it: what is owed is seen by the statement after this.
    await connection.execute(select(replays.c.id).where(these).order_by(replays.c.id).with_for_update())
    is_made = or_(replays.c.last.is_(None), replays.c.cursor >= replays.c.last, replays.c.stopped_at.is_not(None))
    is_orphaned = ~exists().where(subscriptions.c.id == replays.c.subscription_id)
    owed = exists().where(deliveries.c.replay_id == replays.c.id, PENDING)
    finished = update(replays).where(these, UNFINISHED, or_(is_made, is_orphaned), ~owed)
    stopped_at = case((is_made, replays.c.stopped_at), else_=literal(now, Moment))
    await connection.execute(finished.values(finished_at=now, stopped_at=stopped_at))


def _status(row: Row[Any]) -> Any:  # noqa: ANN401 - one of the literals of `ReplayRecord`
    if row.stopped_at is not None:
        return "stopped"
    return "running" if row.finished_at is None else "finished"
