"""Deliveries in SQL as people see and steer them."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select, update

from gateway.errors import Conflict
from gateway.events import LoggedEvent
from gateway.listing import Listing
from gateway.ports.desk import DeliveryQuery, DeliveryRecord, Outcome, RedeliverQuery, ReplayRecord
from gateway.storage import redelivery
from gateway.storage.attempt_rows import attempt_of
from gateway.storage.connection import Connection
from gateway.storage.database import Database, Transaction
from gateway.storage.delivery_listing import list_deliveries
from gateway.storage.delivery_records import record_of, records
from gateway.storage.outcomes import read_outcomes
from gateway.storage.replay_records import cancelled, replay_record, stop_replay
from gateway.storage.tables import DEAD, attempts, deliveries, events, subscriptions
from webhooks.deliveries import Attempt, DeliveryStatus


class SqlDeliveryDesk:
    """`gateway.ports.desk.DeliveryDesk` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, delivery_id: str) -> DeliveryRecord | None:
        async with self._database.reading() as connection:
            return await _get(connection, delivery_id)

    async def attempts(self, delivery_id: str) -> Sequence[Attempt]:
        made = select(attempts).where(attempts.c.delivery_id == delivery_id).order_by(attempts.c.number)
        async with self._database.reading() as connection:
            return tuple(map(attempt_of, await connection.execute(made)))

    async def list(self, query: DeliveryQuery) -> Listing[DeliveryRecord, str]:
        async with self._database.reading() as connection:
            return await list_deliveries(connection, query)

    async def outcomes(
        self, event: LoggedEvent, *, libraries: frozenset[str] | None, limit: int, before: str | None
    ) -> Listing[Outcome, str]:
        async with self._database.reading() as connection:
            return await read_outcomes(connection, event, libraries=libraries, limit=limit, before=before)

    async def retry(self, delivery_id: str, *, now: datetime) -> DeliveryRecord | None:
        async def work(transaction: Transaction) -> DeliveryRecord | None:
            connection = transaction.connection
            if (record := await _get(connection, delivery_id, for_update=True)) is None:
                return None
            if record.status is DeliveryStatus.DELIVERED:
                raise Conflict(f"{delivery_id} was delivered already")
            await _check_sendable(connection, record)
            # A settled one starts over: where its schedule was used up, the one attempt asked for would be its last.
            settled = record.status is not DeliveryStatus.PENDING
            again = redelivery.fresh_schedule(now) if settled else {"due_at": now}
            await connection.execute(
                update(deliveries).where(deliveries.c.id == delivery_id).values(again | {"forced": True})
            )
            return await _get(connection, delivery_id)

        return await self._database.write(work)

    async def cancel(self, delivery_id: str, *, now: datetime) -> DeliveryRecord | None:
        async def work(transaction: Transaction) -> DeliveryRecord | None:
            connection = transaction.connection
            if (record := await _get(connection, delivery_id, for_update=True)) is None:
                return None
            if record.status is not DeliveryStatus.PENDING:
                raise Conflict(f"{delivery_id} is settled already: {record.status}")
            await connection.execute(update(deliveries).where(deliveries.c.id == delivery_id).values(cancelled(now)))
            return await _get(connection, delivery_id)

        return await self._database.write(work)

    async def forget(self, delivery_id: str) -> bool:
        async def work(transaction: Transaction) -> bool:
            connection = transaction.connection
            gone = await connection.execute(delete(deliveries).where(deliveries.c.id == delivery_id, DEAD))
            if not gone.rowcount:
                return False
            await connection.execute(delete(attempts).where(attempts.c.delivery_id == delivery_id))
            return True

        return await self._database.write(work)

    async def count_redeliverable(self, query: RedeliverQuery) -> int:
        return await redelivery.count_redeliverable(self._database, query)

    async def redeliver(self, query: RedeliverQuery, *, now: datetime) -> ReplayRecord:
        return await redelivery.redeliver(self._database, query, now=now)

    async def replay(self, replay_id: str) -> ReplayRecord | None:
        async with self._database.reading() as connection:
            return await replay_record(connection, replay_id)

    async def stop_replay(self, replay_id: str) -> frozenset[str] | None:
        return await stop_replay(self._database, replay_id)


async def _get(connection: Connection, delivery_id: str, *, for_update: bool = False) -> DeliveryRecord | None:
    one = records().where(deliveries.c.id == delivery_id)
    if for_update:
        one = one.with_for_update(of=deliveries)
    row = (await connection.execute(one)).one_or_none()
    return None if row is None else record_of(row)


async def _check_sendable(connection: Connection, record: DeliveryRecord) -> None:
    """Raises:
    Conflict: there is nothing to send any more, or nobody to send it to.
    """
    # Held, so that it is not deleted before this delivery is pending, and to be cancelled with the others.
    owner = select(subscriptions.c.id).where(subscriptions.c.id == record.subscription_id)
    if await connection.scalar(owner.with_for_update(read=True)) is None:
        raise Conflict(f"The subscription of {record.id} was deleted")
    # By its place, not its id: an id may be published again once its event has left the log.
    kept = select(events.c.cursor).join(deliveries, deliveries.c.cursor == events.c.cursor)
    if await connection.scalar(kept.where(deliveries.c.id == record.id)) is None:
        raise Conflict(f"The event of {record.id} is no longer in the log")
