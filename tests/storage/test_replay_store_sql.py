"""The store of replays in SQL keeps what every one promises, whatever the log holds."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar, cast

import pytest

from gateway.events import Cursor, Draft, LoggedEvent
from gateway.filters import Filter
from gateway.listing import EXAMINED_ROWS
from gateway.ports.desk import RedeliverQuery
from gateway.ports.fanout import FanoutPlace
from gateway.ports.replays import ReplayStore, Stretch
from gateway.storage.database import Database, Transaction
from gateway.storage.desk import SqlDeliveryDesk
from gateway.subscriptions import paused
from tests.builders import NOON, a_draft
from tests.contracts.replay_store import ReplayStoreContract, of, started
from tests.storage.arrange import Stores, drop_events
from webhooks.deliveries import Delivery, DeliveryStatus
from webhooks.verdicts import Dead, Delivered, Reason, Retry, Verdict

T = TypeVar("T")

VERDICTS: dict[DeliveryStatus, Verdict] = {
    DeliveryStatus.DELIVERED: Delivered(),
    DeliveryStatus.DEAD: Dead(Reason.EXHAUSTED),
    DeliveryStatus.PENDING: Retry(NOON),
}


class SqlUnderTest:
    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.store: ReplayStore = stores.replays

    @property
    def now(self) -> datetime:
        return self.stores.clock()

    def pass_time(self, seconds: float) -> None:
        self.stores.clock.advance(seconds=seconds)

    async def subscribe(self) -> str:
        return (await self.stores.subscribe()).id

    async def publish(self, *drafts: Draft) -> Sequence[LoggedEvent]:
        return await self.stores.publish(*drafts)

    async def fan_out(self, *owed: tuple[LoggedEvent, str, DeliveryStatus]) -> None:
        fanout, to = self.stores.fanout, FanoutPlace(cursor=(await self.stores.log.position()).head)
        made = await fanout.advance(await fanout.place(), to, [(event, [id_]) for event, id_, _ in owed])
        assert made is not None
        for event, subscription_id, status in owed:
            [delivery] = [one for one in made[subscription_id] if one.event_id == event.id]
            if status is not DeliveryStatus.PENDING:
                await self.stores.settle(delivery, VERDICTS[status])

    async def try_one(self, delivery: Delivery, status: DeliveryStatus) -> None:
        await self.stores.settle(delivery, VERDICTS[status])

    async def pause(self, subscription_id: str) -> None:
        await self.stores.subscriptions.change(
            subscription_id, lambda before: paused(before, self.now), "gateway.subscription.updated"
        )

    async def delete(self, subscription_id: str) -> None:
        await self.stores.subscriptions.delete(subscription_id)

    async def drop(self, until: Cursor) -> None:
        await drop_events(self.stores.database, until)

    async def progress(self, replay_id: str) -> tuple[str, int, dict[str, int]]:
        record = await self.stores.desk.replay(replay_id)
        assert record is not None
        return record.status, record.created, dict(record.by_status)


@pytest.fixture
def subject(stores: Stores) -> SqlUnderTest:
    return SqlUnderTest(stores)


class TestSqlReplayStore(ReplayStoreContract):
    pass


async def test_one_read_looks_at_no_more_events_than_a_page_may(subject: SqlUnderTest) -> None:
    for _ in range(11):
        await subject.publish(*(a_draft() for _ in range(1000)))
    stretch = Stretch(after=Cursor(0), last=Cursor(11_000))
    selection = of("sub_any", own=Filter(types=frozenset({"other"})))
    found = await subject.store.find(selection, stretch, limit=10)
    assert (found.events, found.last) == ((), EXAMINED_ROWS)
    counted = await subject.store.count(of("sub_any"), stretch)
    assert (counted.matched, counted.last) == (EXAMINED_ROWS, EXAMINED_ROWS)


async def test_one_read_fits_into_memory(subject: SqlUnderTest) -> None:
    await subject.publish(*(a_draft(data=b'"%b"' % (b"x" * 600_000)) for _ in range(3)))
    stretch = Stretch(after=Cursor(0), last=Cursor(3))
    found = await subject.store.find(of("sub_any"), stretch, limit=10)
    assert ([event.cursor for event in found.events], found.last) == ([1], 1)


async def test_replayed_deliveries_are_in_a_line_of_their_own(subject: SqlUnderTest) -> None:
    subscription = await subject.stores.subscribe()
    events = await subject.publish(a_draft(), a_draft())
    replay = await started(subject, of(subscription.id), max_per_second=3)
    await subject.store.make(replay, events, to=events[1].cursor)
    await subject.fan_out((events[1], subscription.id, DeliveryStatus.PENDING))
    deliveries = subject.stores.deliveries
    live = await deliveries.due(subscription.id, now=NOON, limit=10)
    behind = await deliveries.due(subscription.id, now=NOON, limit=10, replayed=True)
    assert [(one.cursor, one.replayed, one.replay_per_second) for one in live.deliveries] == [
        (events[1].cursor, False, None)
    ]
    assert [(one.cursor, one.replayed, one.replay_per_second) for one in behind.deliveries] == [
        (event.cursor, True, 3) for event in events
    ]
    assert [one.replayed for one in await deliveries.queue(subscription.id, limit=9, per_library=9)] == [False]
    queue = await deliveries.queue(subscription.id, limit=9, per_library=9, replayed=True)
    assert [one.cursor for one in queue] == [event.cursor for event in events]


async def test_a_dead_letter_of_a_replay_that_is_redelivered_is_live_work(subject: SqlUnderTest) -> None:
    subscription = await subject.stores.subscribe()
    events = await subject.publish()
    replay = await started(subject, of(subscription.id))
    made = await subject.store.make(replay, events, to=events[0].cursor)
    assert made is not None
    await subject.stores.kill(*made)
    again = await subject.stores.desk.redeliver(RedeliverQuery(libraries=None, ids=(made[0].id,)), now=NOON)
    [delivery] = await subject.stores.due(subscription)
    assert (delivery.replayed, delivery.replay_id) == (False, again.id)


async def test_a_dead_letter_of_a_replay_that_is_retried_stays_behind_live_work(subject: SqlUnderTest) -> None:
    subscription = await subject.stores.subscribe()
    events = await subject.publish()
    replay = await started(subject, of(subscription.id))
    made = await subject.store.make(replay, events, to=events[0].cursor)
    assert made is not None
    await subject.stores.kill(*made)
    await subject.stores.desk.retry(made[0].id, now=NOON)
    due = await subject.stores.deliveries.due(subscription.id, now=NOON, limit=1, replayed=True)
    assert [(one.forced, one.replay_id) for one in due.deliveries] == [(True, replay.id)]


async def test_a_redelivery_is_finished_when_none_of_it_is_pending_and_not_between_its_batches(
    subject: SqlUnderTest,
) -> None:
    stores = subject.stores
    subscription = await stores.subscribe()
    [dead] = await stores.owed(subscription)
    await stores.kill(dead)
    replay = await stores.desk.redeliver(RedeliverQuery(libraries=None, subscription_id=subscription.id), now=NOON)
    await subject.store.finish([replay.id])
    assert await subject.progress(replay.id) == ("running", 1, {"pending": 1})
    [again] = await stores.due(subscription)
    await stores.settle(again)
    [row] = (await subject.store.unfinished()).replays
    assert (row.selection, row.is_made, row.pending) == (None, True, 0)
    await subject.store.finish([replay.id])
    assert await subject.progress(replay.id) == ("finished", 1, {"delivered": 1})


async def test_a_stop_that_was_cut_short_is_known_as_one(subject: SqlUnderTest) -> None:
    subscription = await subject.stores.subscribe()
    events = await subject.publish(*(a_draft() for _ in range(3)))
    replay = await started(subject, of(subscription.id))
    made = await subject.store.make(replay, events, to=events[-1].cursor)
    assert made is not None
    await subject.store.stop(replay.id)
    await subject.stores.desk.retry(made[1].id, now=NOON)
    assert await subject.store.stop(replay.id) == frozenset({subscription.id})
    assert await subject.progress(replay.id) == ("stopped", 3, {"cancelled": 3})


class Meddled:
    """*database*, with a runner of replays that looks after each write whether something is finished."""

    def __init__(self, database: Database, replays: ReplayStore) -> None:
        self._real = database
        self._replays = replays

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def write(self, work: Callable[[Transaction], Awaitable[T]], *, durable: bool = True) -> T:
        result = await self._real.write(work, durable=durable)
        await self._replays.finish([one.id for one in (await self._replays.unfinished()).replays])
        return result


async def test_a_redelivery_that_looks_finished_before_its_first_batch_is_not(subject: SqlUnderTest) -> None:
    stores = subject.stores
    subscription = await stores.subscribe()
    await stores.kill(*await stores.owed(subscription, events=3))
    query = RedeliverQuery(libraries=None, subscription_id=subscription.id)
    desk = SqlDeliveryDesk(cast("Database", Meddled(stores.database, subject.store)))
    replay = await desk.redeliver(query, now=NOON)
    assert await subject.progress(replay.id) == ("running", 3, {"pending": 3})


async def test_an_event_under_an_id_that_was_used_before_is_undelivered(subject: SqlUnderTest) -> None:
    here = await subject.subscribe()
    [before] = await subject.publish(a_draft(id="a"))
    await subject.fan_out((before, here, DeliveryStatus.DELIVERED))
    await subject.drop(before.cursor)
    [after] = await subject.publish(a_draft(id="a"))
    stretch = Stretch(after=before.cursor, last=after.cursor)
    assert (await subject.store.count(of(here, undelivered=True), stretch)).matched == 1
