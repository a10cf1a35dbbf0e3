"""From events to deliveries, durably: the rows and the cursor move together."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from typeid import TypeID

from gateway.events import Cursor, LoggedEvent
from gateway.storage.database import Database, Transaction
from gateway.storage.tables import cursors, deliveries
from webhooks.deliveries import DeliveryStatus

_READER = "fanout"


class SqlFanoutStore:
    """`gateway.ports.FanoutStore` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def cursor(self) -> Cursor:
        async with self._database.reading() as connection:
            return await fanout_cursor(connection)

    async def advance(self, since: Cursor, to: Cursor, wanted: Sequence[tuple[LoggedEvent, Sequence[str]]]) -> bool:
        # Made before the writer is taken: with thousands of rows it is half of the work.
        now = self._database.clock()
        rows = [_row(event, subscription_id, now) for event, ids in wanted for subscription_id in ids]

        async def work(transaction: Transaction) -> bool:
            moved = await transaction.connection.execute(
                update(cursors).where(cursors.c.reader == _READER, cursors.c.cursor == since).values(cursor=to)
            )
            if not moved.rowcount:
                return False
            if rows:
                await transaction.connection.execute(insert(deliveries), rows)
            return True

        return await self._database.write(work, durable=False)


async def fanout_cursor(connection: AsyncConnection) -> Cursor:
    """Up to where events have their deliveries, as *connection* sees it."""
    return Cursor((await connection.execute(select(cursors.c.cursor).where(cursors.c.reader == _READER))).scalar_one())


def _row(event: LoggedEvent, subscription_id: str, now: datetime) -> dict[str, Any]:
    return {
        "id": str(TypeID("dlv")),  # rises with each that is made, also within a microsecond
        "subscription_id": subscription_id,
        "cursor": event.cursor,
        "event_id": event.id,
        "library_id": event.library_id,
        "type": event.type,
        "status": DeliveryStatus.PENDING.value,
        "created_at": now,
        "due_at": now,
        "attempt_count": 0,
        "schedule_start": 0,
        "idle_before": timedelta(0),
        "forced": False,
    }
