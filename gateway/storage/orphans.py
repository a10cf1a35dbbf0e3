"""What deleted subscriptions still owed: settled as cancelled, some at a time."""

from datetime import datetime

from sqlalchemy import delete, select, update

from gateway.storage.connection import Connection
from gateway.storage.fanout import fanout_cursor
from gateway.storage.tables import OWING, PENDING, deliveries, lanes, tombstones
from webhooks.deliveries import DeliveryStatus
from webhooks.verdicts import Reason

_LOOKED_AT = 500
"""Deleted subscriptions that one transaction looks at."""


async def cancel_orphans(connection: Connection, limit: int, *, now: datetime) -> int:
    """Cancel up to *limit* pending deliveries of deleted subscriptions; how many it were."""
    owing = (await connection.execute(select(tombstones).where(OWING).limit(_LOOKED_AT))).all()
    if not owing:
        return 0
    passed = await fanout_cursor(connection)
    cancelled = 0
    ended: list[str] = []
    for row in owing:
        cancelled += await _cancel(connection, row.subscription_id, limit - cancelled, now)
        if cancelled >= limit:
            break
        if row.cursor <= passed:  # until then the fan-out may add to them
            ended.append(row.subscription_id)
    if ended:
        await connection.execute(update(tombstones).where(tombstones.c.subscription_id.in_(ended)).values(owing=False))
        await connection.execute(delete(lanes).where(lanes.c.subscription_id.in_(ended)))
    return cancelled


async def _cancel(connection: Connection, subscription_id: str, limit: int, now: datetime) -> int:
    some = (
        select(deliveries.c.id)
        .where(deliveries.c.subscription_id == subscription_id, PENDING)
        .order_by(deliveries.c.rank, deliveries.c.due_at, deliveries.c.cursor, deliveries.c.id)
        .limit(limit)
        .with_for_update()  # in a statement of its own: within another an engine may run it more than once
    )
    ids = (await connection.execute(some)).scalars().all()
    if ids:
        await connection.execute(
            update(deliveries)
            .where(deliveries.c.id.in_(ids))
            .values(
                status=DeliveryStatus.CANCELLED.value,
                reason=Reason.SUBSCRIPTION_DELETED.value,
                settled_at=now,
                forced=False,
            )
        )
    return len(ids)
