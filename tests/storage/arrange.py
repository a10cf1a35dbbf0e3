"""A database with every store over it, and words for what tests do with them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, update
from typeid import TypeID

from gateway.events import Cursor, Draft, LoggedEvent
from gateway.filters import Filter
from gateway.ports.fanout import FanoutPlace
from gateway.ports.replays import Selection, Stretch
from gateway.storage.database import Database, Transaction
from gateway.storage.deliveries import SqlDeliveryStore
from gateway.storage.desk import SqlDeliveryDesk
from gateway.storage.fanout import SqlFanoutStore
from gateway.storage.keys import SqlKeyStore
from gateway.storage.log import SqlEventLog
from gateway.storage.replays import SqlReplayStore
from gateway.storage.subscriptions import SqlSubscriptionStore
from gateway.storage.tables import events, log
from gateway.subscriptions import Subscription
from tests.builders import NOON, HandClock, a_draft
from webhooks.deliveries import Attempt, Delivery, DeliveryStatus, Settlement
from webhooks.endpoints import Health
from webhooks.signing import Secret
from webhooks.verdicts import Dead, Delivered, Reason, Retry, Verdict

SCHEDULE = (5.0, 300.0)


def a_subscription(*, id: str | None = None, libraries: Iterable[str] | None = None, **fields: Any) -> Subscription:  # noqa: A002 - the field is named so
    return Subscription(
        **{
            "id": id or str(TypeID("sub")),
            "url": "https://example.com/hooks",
            "filter": Filter(),
            "libraries": None if libraries is None else frozenset(libraries),
            "secrets": (Secret(key=b"k" * 32),),
            "created_at": NOON,
            "created_by": "key_maker",
            **fields,
        }
    )


def an_attempt(number: int = 1, *, status_code: int | None = 200, **fields: Any) -> Attempt:
    return Attempt(
        number=number, started_at=NOON, duration=timedelta(milliseconds=20), status_code=status_code, **fields
    )


def a_settlement(delivery: Delivery, verdict: Verdict | None = None, **fields: Any) -> Settlement:
    return Settlement(
        **{
            "delivery": delivery,
            "attempt": an_attempt(delivery.attempt_count + 1),
            "verdict": verdict or Delivered(),
            "health": Health(),
            "at": NOON,
            **fields,
        }
    )


@dataclass(frozen=True, slots=True)
class Stores:
    database: Database
    clock: HandClock
    log: SqlEventLog
    keys: SqlKeyStore
    subscriptions: SqlSubscriptionStore
    fanout: SqlFanoutStore
    deliveries: SqlDeliveryStore
    desk: SqlDeliveryDesk
    replays: SqlReplayStore

    @classmethod
    def over(cls, database: Database, clock: HandClock) -> "Stores":
        return cls(
            database,
            clock,
            SqlEventLog(database),
            SqlKeyStore(database),
            SqlSubscriptionStore(database),
            SqlFanoutStore(database),
            SqlDeliveryStore(database, retry_schedule=SCHEDULE),
            SqlDeliveryDesk(database),
            SqlReplayStore(database),
        )

    async def subscribe(self, **fields: Any) -> Subscription:
        created = await self.subscriptions.create(a_subscription(**fields))
        assert created is not None
        return created

    async def publish(self, *drafts: Draft) -> Sequence[LoggedEvent]:
        """Append *drafts*, or one of no matter what; the events they became."""
        head = (await self.log.position()).head
        await self.log.append([drafts or (a_draft(),)])
        return (await self.log.read(head, limit=100_000, max_bytes=2**30)).events

    async def owe(self, events: Sequence[LoggedEvent], *subscriptions: Subscription) -> None:
        """Fan *events* out to each of *subscriptions*."""
        ids = [subscription.id for subscription in subscriptions]
        to = FanoutPlace(cursor=(await self.log.position()).head)
        assert await self.fanout.advance(await self.fanout.place(), to, [(event, ids) for event in events]) is not None

    async def owed(self, *subscriptions: Subscription, events: int = 1) -> tuple[Delivery, ...]:
        """Publish and fan out; the deliveries that wait for the first of *subscriptions*."""
        await self.owe(await self.publish(*(a_draft() for _ in range(events))), *subscriptions)
        return await self.due(subscriptions[0])

    async def due(
        self, subscription: Subscription, *, now: datetime | None = None, limit: int = 1000
    ) -> tuple[Delivery, ...]:
        return (await self.deliveries.due(subscription.id, now=now or self.clock(), limit=limit)).deliveries

    async def replay(self, subscription_id: str, *owed: Delivery) -> Sequence[Delivery]:
        """The events of *owed* once more, by a replay of the whole log."""
        head = (await self.log.position()).head
        selection = Selection(subscription_id=subscription_id, own=Filter(), libraries=None)
        stretch = Stretch(after=Cursor(0), last=head)
        replay_id = await self.replays.start(
            selection, stretch, matched=len(owed), max_per_second=None, now=self.clock(), at_most=100
        )
        replay = next(one for one in (await self.replays.unfinished()).replays if one.id == replay_id)
        cursors = {one.cursor for one in owed}
        events = (await self.log.read(Cursor(0), limit=100_000, max_bytes=2**30)).events
        made = await self.replays.make(replay, [event for event in events if event.cursor in cursors], to=head)
        assert made is not None
        return made

    async def settle(self, delivery: Delivery, verdict: Verdict | None = None, **fields: Any) -> None:
        await self.deliveries.settle([a_settlement(delivery, verdict, **fields)])

    async def kill(self, *deliveries: Delivery, reason: Reason = Reason.EXHAUSTED) -> None:
        await self.deliveries.settle(
            [
                a_settlement(delivery, Dead(reason), attempt=an_attempt(delivery.attempt_count + 1, status_code=500))
                for delivery in deliveries
            ]
        )

    async def fail(self, delivery: Delivery, *, due_at: datetime) -> None:
        await self.settle(delivery, Retry(due_at), attempt=an_attempt(delivery.attempt_count + 1, status_code=503))

    async def notices(self, after: Cursor = Cursor(0)) -> list[LoggedEvent]:
        page = await self.log.read(after, limit=10_000, max_bytes=2**30)
        return [event for event in page.events if event.is_gateways_own]

    async def status(self, delivery: Delivery) -> DeliveryStatus:
        record = await self.desk.get(delivery.id)
        assert record is not None
        return record.status


async def drop_events(database: Database, until: Cursor) -> None:
    """What retention does to the log: forget the events up to and including *until*."""

    async def work(transaction: Transaction) -> None:
        connection = transaction.connection
        last = await connection.scalar(
            events.select().with_only_columns(events.c.accepted_at).where(events.c.cursor == until)
        )
        await connection.execute(delete(events).where(events.c.cursor <= until))
        await connection.execute(update(log).values(earliest=until + 1, dropped_until=last))

    await database.write(work)
