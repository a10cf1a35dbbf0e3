"""Subscriptions in SQL: each change appends its notice to the log in the same transaction.

A subscription whose filter changed keeps the former one until the fan-out has passed the notice of the change, so
that a fan-out which lags, or starts again, gives each event to whom it was for when it was accepted.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from gateway.events import Cursor
from gateway.keys import holds
from gateway.listing import EXAMINED_BYTES, EXAMINED_ROWS, Listing
from gateway.storage import notices
from gateway.storage.connection import Connection
from gateway.storage.database import Database, Transaction
from gateway.storage.fanout import fanout_cursor
from gateway.storage.log import hold
from gateway.storage.orphans import cancel_orphans
from gateway.storage.rows import within
from gateway.storage.subscription_rows import (
    INTEREST_COLUMNS,
    former_json,
    interest_of,
    row_of_subscription,
    subscription_of,
)
from gateway.storage.tables import lanes, subscriptions, tombstones
from gateway.subscriptions import Interest, Subscription
from webhooks.endpoints import Status


class SqlSubscriptionStore:
    """`gateway.ports.subscriptions.SubscriptionStore` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, subscription: Subscription, *, at_most: int | None = None) -> Subscription | None:
        async def work(transaction: Transaction) -> Subscription | None:
            connection = transaction.connection
            if at_most is not None:
                await hold(connection)  # two at once would both count themselves in
                made = select(func.count()).where(subscriptions.c.created_by == subscription.created_by)
                if (await connection.execute(made)).scalar_one() >= at_most:
                    return None
            cursor = await notices.tell(
                transaction, notices.about_subscription(notices.CREATED, subscription), now=self._database.clock()
            )
            created = replace(subscription, created_cursor=cursor)
            own = {"former": [], "filter_since": cursor}
            row = row_of_subscription(created, self._database.seal) | own
            await connection.execute(insert(subscriptions), row)
            return created

        return await self._database.write(work)

    async def get(self, subscription_id: str) -> Subscription | None:
        async with self._database.reading() as connection:
            row = await _row(connection, subscription_id)
            return None if row is None else subscription_of(row, self._database.seal)

    async def list(
        self, *, libraries: frozenset[str] | None, limit: int, before: str | None
    ) -> Listing[Subscription, str]:
        size = func.length(subscriptions.c.headers) + func.length(subscriptions.c.metadata)
        # To look at many rows is cheap, for that the large columns stay where they are; those shown are then read.
        examined = (
            select(subscriptions.c.id, subscriptions.c.libraries, size.label("size"))
            .order_by(subscriptions.c.id.desc())
            .limit(limit + 1 if libraries is None else EXAMINED_ROWS)
        )
        if before is not None:
            examined = examined.where(subscriptions.c.id < before)
        async with self._database.reading() as connection:
            rows = (await connection.execute(examined)).all()
            seen = [(row.id, row.size) for row in rows if holds(libraries, row.libraries)]
            last = within(seen[:limit], EXAMINED_BYTES)
            shown = [id_ for id_, _ in seen[:limit] if last is not None and id_ >= last]
            found = await connection.execute(
                select(subscriptions).where(subscriptions.c.id.in_(shown)).order_by(subscriptions.c.id.desc())
            )
            page = tuple(subscription_of(row, self._database.seal) for row in found)
        if len(seen) > len(page):
            return Listing(page, page[-1].id)
        whole = len(rows) < (limit + 1 if libraries is None else EXAMINED_ROWS)
        return Listing(page, None if whole else rows[-1].id)

    async def change(
        self, subscription_id: str, change: Callable[[Subscription], Subscription], notice: str
    ) -> Subscription | None:
        async def work(transaction: Transaction) -> Subscription | None:
            row = await _row(transaction.connection, subscription_id, for_update=True)
            if row is None:
                return None
            before = subscription_of(row, self._database.seal)
            after = change(before)
            if after != before:
                cursor = await notices.tell(
                    transaction, notices.about_subscription(notice, after), now=self._database.clock()
                )
                own = {
                    "former": await _former(transaction.connection, row, before, after, cursor),
                    "filter_since": row.filter_since if after.filter == before.filter else cursor,
                }
                await transaction.connection.execute(
                    update(subscriptions)
                    .where(subscriptions.c.id == subscription_id)
                    .values(row_of_subscription(after, self._database.seal) | own)
                )
                if _starts_afresh(before, after):
                    await transaction.connection.execute(
                        delete(lanes).where(lanes.c.subscription_id == subscription_id)
                    )
                elif after.idle != before.idle:
                    await _pass_over(transaction.connection, subscription_id, after.idle - before.idle)
            return after

        return await self._database.write(work)

    async def delete(self, subscription_id: str) -> bool:
        async def work(transaction: Transaction) -> bool:
            row = await _row(transaction.connection, subscription_id, for_update=True)
            if row is None:
                return False
            subscription = subscription_of(row, self._database.seal)
            cursor = await notices.tell(
                transaction, notices.about_subscription(notices.DELETED, subscription), now=self._database.clock()
            )
            await transaction.connection.execute(delete(subscriptions).where(subscriptions.c.id == subscription_id))
            await transaction.connection.execute(
                insert(tombstones),
                {
                    "subscription_id": subscription_id,
                    "libraries": subscription.libraries,
                    "cursor": cursor,
                    "owing": True,
                },
            )
            return True

        return await self._database.write(work)

    async def interests(self, at: Cursor) -> Sequence[Interest]:
        wanted = select(*(subscriptions.c[name] for name in INTEREST_COLUMNS))
        async with self._database.reading() as connection:
            return [interest_of(row, at) for row in await connection.execute(wanted)]

    async def cancel_orphans(self, limit: int) -> int:
        """Cancel up to *limit* deliveries that deleted subscriptions still owed, and answer how many it were.

        In small batches, so that deleting a subscription with a long backlog never holds up the writer. To be called
        until it answers 0, now and then: a fan-out that has not yet passed the deletion may still add some.
        """

        async def work(transaction: Transaction) -> int:
            return await cancel_orphans(transaction.connection, limit, now=self._database.clock())

        return await self._database.write(work, durable=False, can_wait=True)


def _starts_afresh(before: Subscription, after: Subscription) -> bool:
    """Whether what its lane has learnt of the receiver says nothing any more: it leads elsewhere, or somebody who has
    mended it has taken it out of being disabled. A pause changes nothing about a receiver."""
    enabled = before.status is Status.DISABLED and after.status is Status.ACTIVE
    return enabled or before.url != after.url


async def _pass_over(connection: Connection, subscription_id: str, idle: timedelta) -> None:
    """A receiver does not fail while nothing is sent to it: being *idle* leads it no nearer to being disabled."""
    mine = lanes.c.subscription_id == subscription_id
    since = await connection.scalar(select(lanes.c.failing_since).where(mine))
    if since is not None:
        await connection.execute(update(lanes).where(mine).values(failing_since=since + idle))


async def _row(connection: Connection, subscription_id: str, *, for_update: bool = False) -> Any:  # noqa: ANN401 - a row, or None
    one = select(subscriptions).where(subscriptions.c.id == subscription_id)
    return (await connection.execute(one.with_for_update() if for_update else one)).one_or_none()


async def _former(
    connection: Connection, row: Row[Any], before: Subscription, after: Subscription, cursor: Cursor
) -> list[dict[str, Any]]:
    """The former interests to keep when *before* became *after* at *cursor*: those the fan-out still needs."""
    passed = await fanout_cursor(connection)
    kept = [former for former in row.former if former["until"] > passed]
    if after.filter == before.filter:
        return kept
    return [*kept, former_json(before.filter, since=row.filter_since, until=cursor)]
