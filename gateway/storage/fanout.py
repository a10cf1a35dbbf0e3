"""From events to deliveries, durably: the rows and the cursor move together."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from typeid import TypeID

from gateway.events import Cursor, LoggedEvent
from gateway.ports.fanout import FanoutPlace, Wanted
from gateway.storage.connection import Connection
from gateway.storage.database import Database, Transaction
from gateway.storage.tables import cursors, deliveries
from webhooks.deliveries import Delivery, DeliveryStatus

_OURS = cursors.c.reader == "fanout"
_MOVE = (
    update(cursors)
    .where(_OURS, cursors.c.cursor == bindparam("old_cursor"), cursors.c.ahead == bindparam("old_ahead"))
    .values(cursor=bindparam("new_cursor"), ahead=bindparam("new_ahead"), behind=bindparam("new_behind"))
)
"""Only if nobody else has moved it: each move leaves one of the two larger."""
_MAKE = insert(deliveries)


class SqlFanoutStore:
    """`gateway.ports.fanout.FanoutStore` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def place(self) -> FanoutPlace:
        async with self._database.reading() as connection:
            row = (await connection.execute(select(cursors).where(_OURS))).one()
        behind = {id_: Cursor(cursor) for id_, cursor in (row.behind or {}).items()}
        return FanoutPlace(cursor=Cursor(row.cursor), ahead=Cursor(row.ahead), behind=behind)

    async def advance(
        self, since: FanoutPlace, to: FanoutPlace, wanted: Sequence[Wanted]
    ) -> Mapping[str, Sequence[Delivery]] | None:
        # Made before the writer is taken: with thousands of rows it is half of the work.
        now = self._database.clock()
        made = [new_delivery(event, subscription_id, now) for event, ids in wanted for subscription_id in ids]
        # In this order all take the rows of `delivery_counts`.
        rows = [row_of_delivery(delivery) for delivery in sorted(made, key=lambda one: one.endpoint_id)]
        values = {
            "old_cursor": since.cursor,
            "old_ahead": since.ahead,
            "new_cursor": to.cursor,
            "new_ahead": to.ahead,
            "new_behind": to.behind or None,
        }

        async def work(transaction: Transaction) -> bool:
            moved = await transaction.connection.execute(_MOVE, values)
            if not moved.rowcount:
                return False
            if rows:
                await transaction.connection.execute(_MAKE, rows)
            return True

        if not await self._database.write(work, durable=False):
            return None
        created: dict[str, list[Delivery]] = {}
        for delivery in made:
            created.setdefault(delivery.endpoint_id, []).append(delivery)
        return created


async def fanout_cursor(connection: Connection) -> Cursor:
    """Up to where events have their deliveries, as *connection* sees it."""
    return Cursor((await connection.execute(select(cursors.c.cursor).where(_OURS))).scalar_one())


def new_delivery(event: LoggedEvent, subscription_id: str, now: datetime) -> Delivery:
    return Delivery(
        id=str(TypeID("dlv")),  # rises with each that is made, also within a microsecond
        endpoint_id=subscription_id,
        event_id=event.id,
        event_type=event.type.value,
        library_id=event.library_id,
        cursor=event.cursor,
        body=event.body,
        event_time=event.timestamp,
        accepted_at=event.accepted_at,
        traceparent=event.traceparent,
        created_at=now,
        due_at=now,
    )


def row_of_delivery(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "subscription_id": delivery.endpoint_id,
        "cursor": delivery.cursor,
        "event_id": delivery.event_id,
        "library_id": delivery.library_id,
        "type": delivery.event_type,
        "status": DeliveryStatus.PENDING.value,
        "created_at": delivery.created_at,
        "due_at": delivery.due_at,
        "attempt_count": 0,
        "schedule_start": 0,
        "idle_before": timedelta(0),
        "forced": False,
    }
