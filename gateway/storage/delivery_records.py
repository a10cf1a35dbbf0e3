"""Rows of deliveries as people see them."""

from typing import Any

from sqlalchemy import Row, Select, case, select

from gateway.ports.desk import DeliveryRecord
from gateway.storage.tables import deliveries, subscriptions, tombstones
from webhooks.deliveries import DeliveryStatus


def records() -> Select[Any]:
    """Deliveries, each with the libraries that one must hold to see it.

    They are those of its subscription; of one that was deleted, those that it left on its tombstone.
    """
    libraries = case((subscriptions.c.id.is_not(None), subscriptions.c.libraries), else_=tombstones.c.libraries)
    return (
        select(deliveries, libraries.label("libraries"))
        .outerjoin(subscriptions, subscriptions.c.id == deliveries.c.subscription_id)
        .outerjoin(tombstones, tombstones.c.subscription_id == deliveries.c.subscription_id)
    )


def record_of(row: Row[Any]) -> DeliveryRecord:
    status = DeliveryStatus(row.status)
    return DeliveryRecord(
        id=row.id,
        event_id=row.event_id,
        subscription_id=row.subscription_id,
        library_id=row.library_id,
        type=row.type,
        status=status,
        reason=row.reason,
        attempt_count=row.attempt_count,
        created_at=row.created_at,
        due_at=row.due_at if status is DeliveryStatus.PENDING else None,
        settled_at=row.settled_at,
        replay_id=row.replay_id,
        libraries=row.libraries,
    )
