"""What retention takes from the database, and what it never does."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
from msgspec.structs import replace
from sqlalchemy import text

from gateway.errors import StorageUnavailable
from gateway.events import Cursor, Page
from gateway.fanout.fanout import Fanout
from gateway.filters import Filter
from gateway.ports.desk import RedeliverQuery
from gateway.ports.log import HistoryQuery, IdTaken
from gateway.ports.replays import Selection, Stretch
from gateway.ports.retention import Dropped
from gateway.storage.database import Database
from gateway.storage.engines import database_of
from gateway.storage.replays import SqlReplayStore
from gateway.storage.retention import SqlRetentionStore
from gateway.storage.tables import deliveries
from gateway.subscriptions import disabled, paused
from gateway.upkeep.retention import Retention
from tests.builders import NOON, HandClock, a_draft
from tests.storage.arrange import Stores, an_attempt
from tests.until import until
from webhooks.deliveries import DeliveryStatus
from webhooks.verdicts import Dead, Delivered, Reason, Retry

LATER = NOON + timedelta(hours=1)
EVERYTHING = Cursor(2**62)
BOOKS = frozenset({"books"})


@pytest.fixture
def retention(database: Database) -> SqlRetentionStore:
    return SqlRetentionStore(database)


async def drop_events(
    retention: SqlRetentionStore,
    *,
    before: datetime = LATER,
    passed: Cursor = EVERYTHING,
    limit: int = 100,
    max_bytes: int = 2**20,
    most_owed: int = 100,
) -> Dropped:
    return await retention.drop_events(
        before=before, passed=passed, limit=limit, max_bytes=max_bytes, most_owed=most_owed
    )


async def kept(stores: Stores) -> list[int]:
    return [event.cursor for event in (await stores.log.read(Cursor(0), limit=10_000)).events]


async def told(stores: Stores) -> list[dict[str, Any]]:
    """What was told of deliveries that died."""
    return [
        msgspec.json.decode(notice.data) for notice in await stores.notices() if notice.type == "gateway.delivery.dead"
    ]


async def count(stores: Stores, table: str) -> int:
    async with stores.database.reading() as connection:
        found: int = (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()  # noqa: S608 - a name from here
    return found


# --- events ----------------------------------------------------------------------------------------------------------


async def test_events_leave_in_the_order_of_the_log_when_they_are_too_old(
    stores: Stores, retention: SqlRetentionStore
) -> None:
    for _ in range(4):
        await stores.owe(await stores.publish())
        stores.clock.advance(seconds=10)
    dropped = await drop_events(retention, before=NOON + timedelta(seconds=20))
    assert dropped == Dropped(events=2, owing=frozenset(), more=True)
    assert await kept(stores) == [3, 4]
    assert (await stores.log.position()).earliest == 3
    assert await stores.log.dropped_until() == NOON + timedelta(seconds=10)
    assert await drop_events(retention, before=NOON + timedelta(seconds=20)) == Dropped(
        events=0, owing=frozenset(), more=False
    )


async def test_a_batch_is_bounded_in_events_and_in_bytes(stores: Stores, retention: SqlRetentionStore) -> None:
    await stores.owe(await stores.publish(*(a_draft(data=b'{"s":"%b"}' % (b"x" * 92)) for _ in range(10))))
    assert (await drop_events(retention, limit=2)).events == 2
    assert (await drop_events(retention, max_bytes=350)).events == 3
    assert (await drop_events(retention, max_bytes=1)).events == 1  # else a large one would stay for ever
    assert await kept(stores) == [7, 8, 9, 10]


async def test_the_head_stays_when_the_log_becomes_empty_and_no_cursor_comes_twice(
    stores: Stores, retention: SqlRetentionStore
) -> None:
    await stores.owe(await stores.publish(a_draft(), a_draft()))
    await drop_events(retention)
    position = await stores.log.position()
    assert (position.earliest, position.head) == (3, 2)
    [event] = await stores.publish()
    assert event.cursor == 3


async def test_what_the_fan_out_has_not_passed_stays(stores: Stores, retention: SqlRetentionStore) -> None:
    await stores.owe(await stores.publish(a_draft(), a_draft()))
    await stores.publish()
    await drop_events(retention)
    assert await kept(stores) == [3]


async def test_what_this_process_has_not_read_stays(stores: Stores, retention: SqlRetentionStore) -> None:
    await stores.owe(await stores.publish(a_draft(), a_draft()))
    await drop_events(retention, passed=Cursor(1))
    assert await kept(stores) == [2]


async def test_an_id_is_known_for_as_long_as_its_event_is_there(stores: Stores, retention: SqlRetentionStore) -> None:
    await stores.owe(await stores.publish(a_draft(id="a", data=b'{"n":1}')))
    await drop_events(retention)
    [again] = await stores.publish(a_draft(id="a", data=b'{"n":2}'))
    assert again.cursor == 2
    found = await stores.log.get("a")
    assert found is not None
    assert found.data == b'{"n":2}'


async def test_two_at_once_harm_nothing(stores: Stores) -> None:
    async def drop_all() -> None:
        # Where writers take no turns, several may find the same few, and only one of them takes them.
        while (await drop_events(SqlRetentionStore(stores.database), limit=5)).more:
            pass

    subscription = await stores.subscribe()
    await stores.owed(subscription, events=20)
    await asyncio.gather(*(drop_all() for _ in range(8)))
    assert (await stores.log.position()).earliest == 22  # with that the subscription was made
    assert len(await told(stores)) == 20


async def test_what_a_crash_interrupts_goes_on_where_it_was(path: Path, clock: HandClock) -> None:
    url = f"sqlite:///{path}"
    async with database_of(url, clock=clock) as database:
        stores = Stores.over(database, clock)
        subscription = await stores.subscribe()
        await stores.owed(subscription, events=6)
        await drop_events(SqlRetentionStore(database), limit=4)
    async with database_of(url, clock=clock) as database:
        stores = Stores.over(database, clock)
        assert (await stores.log.position()).earliest == 5
        assert len(await stores.due(subscription)) == 3
        await drop_events(SqlRetentionStore(database), limit=4)
        assert len(await told(stores)) == 6
        assert await stores.due(subscription) == ()


# --- what is still owed ----------------------------------------------------------------------------------------------


async def test_what_is_still_owed_to_a_leaving_event_becomes_a_dead_letter(
    stores: Stores, retention: SqlRetentionStore
) -> None:
    subscription = await stores.subscribe(libraries={"books"})
    [delivery] = await stores.owed(subscription)
    await stores.fail(delivery, due_at=LATER)
    stores.clock.advance(seconds=10)
    assert (await drop_events(retention)).owing == {subscription.id}
    record = await stores.desk.get(delivery.id)
    assert record is not None
    assert (record.status, record.reason, record.settled_at) == (DeliveryStatus.DEAD, "expired", stores.clock())
    [notice] = [notice for notice in await stores.notices() if notice.type == "gateway.delivery.dead"]
    assert notice.audience == BOOKS
    assert msgspec.json.decode(notice.data) == {
        "delivery_id": delivery.id,
        "subscription_id": subscription.id,
        "event_id": delivery.event_id,
        "event_type": "document.added",
        "event_library_id": "books",
        "reason": "expired",
        "attempt_count": 1,
        "last_status_code": None,
        "last_error": None,
    }


@pytest.mark.parametrize("change", [paused, lambda now, at: disabled(now, "failing", at)])
async def test_what_an_idle_subscription_is_owed_expires_too(
    stores: Stores, retention: SqlRetentionStore, change: Any
) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    await stores.subscriptions.change(subscription.id, lambda now: change(now, NOON), "gateway.subscription.updated")
    await drop_events(retention)
    assert await stores.status(delivery) is DeliveryStatus.DEAD


async def test_what_is_settled_stays_as_it_is(stores: Stores, retention: SqlRetentionStore) -> None:
    subscription = await stores.subscribe()
    delivered, dead, cancelled, pending = await stores.owed(subscription, events=4)
    await stores.settle(delivered)
    await stores.kill(dead)
    await stores.desk.cancel(cancelled.id, now=NOON)
    before = [await stores.desk.get(delivery.id) for delivery in (delivered, dead, cancelled)]
    await drop_events(retention)
    assert [await stores.desk.get(delivery.id) for delivery in (delivered, dead, cancelled)] == before
    assert [data["delivery_id"] for data in await told(stores)] == [dead.id, pending.id]


async def test_the_end_of_one_of_the_gateways_own_events_is_not_told(
    stores: Stores, retention: SqlRetentionStore
) -> None:
    subscription = await stores.subscribe()
    await stores.owe(await stores.notices(), subscription)
    [delivery] = await stores.due(subscription)
    await drop_events(retention)
    assert await stores.status(delivery) is DeliveryStatus.DEAD
    assert await told(stores) == []


async def test_what_a_deleted_subscription_was_owed_is_not_told(stores: Stores, retention: SqlRetentionStore) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    await stores.subscriptions.delete(subscription.id)
    await drop_events(retention)
    assert await stores.status(delivery) is DeliveryStatus.DEAD
    assert await told(stores) == []


async def test_an_event_that_many_are_owed_stays_until_all_of_it_has_expired(
    stores: Stores, retention: SqlRetentionStore
) -> None:
    subscriptions = [await stores.subscribe() for _ in range(5)]
    await stores.owed(*subscriptions, events=2)
    log: list[tuple[int, int]] = []
    for _ in range(5):
        dropped = await drop_events(retention, most_owed=3)
        assert dropped.more is (dropped.events + len(dropped.owing) > 0)
        log.append(((await stores.log.position()).earliest, len(await told(stores))))
    # Five notices of creation, then two events with five deliveries each.
    assert log == [(6, 3), (7, 6), (7, 9), (8, 10), (8, 10)]


async def test_one_that_was_retried_while_its_event_left_expires_all_the_same(
    stores: Stores, retention: SqlRetentionStore
) -> None:
    """As it can happen where several processes write at once."""
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    await drop_events(retention)
    await stores.database.write(
        lambda transaction: transaction.connection.execute(deliveries.update().values(status="pending"))
    )
    assert (await drop_events(retention)).owing == {subscription.id}
    assert await stores.status(delivery) is DeliveryStatus.DEAD


@pytest.mark.parametrize("verdict", [Delivered(), Retry(LATER), Dead(Reason.EXHAUSTED)])
async def test_an_attempt_that_was_in_flight_is_kept_and_changes_nothing(
    stores: Stores, retention: SqlRetentionStore, verdict: Any
) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    await drop_events(retention)
    await stores.settle(delivery, verdict)
    record = await stores.desk.get(delivery.id)
    assert record is not None
    assert (record.status, record.reason, record.attempt_count) == (DeliveryStatus.DEAD, "expired", 1)
    assert len(await stores.desk.attempts(delivery.id)) == 1
    assert len(await told(stores)) == 1


async def test_a_dead_letter_whose_event_has_left_is_not_sent_again(
    stores: Stores, retention: SqlRetentionStore
) -> None:
    subscription = await stores.subscribe()
    await stores.owed(subscription, events=3)
    await drop_events(retention, limit=3)
    again = await stores.desk.redeliver(RedeliverQuery(libraries=None, subscription_id=subscription.id), now=NOON)
    assert again.matched == 0
    assert len(await stores.due(subscription)) == 1


# --- attempts and what is settled ------------------------------------------------------------------------------------


async def test_attempts_leave_by_their_age_and_the_deliveries_keep_count(
    stores: Stores, retention: SqlRetentionStore
) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    for number in (1, 2, 3):
        attempt = replace(an_attempt(number, status_code=500), started_at=NOON + number * timedelta(minutes=1))
        await stores.settle(delivery, Retry(NOON), attempt=attempt)
    assert await retention.drop_attempts(before=NOON + timedelta(minutes=3), limit=1) == 1
    assert [attempt.number for attempt in await stores.desk.attempts(delivery.id)] == [2, 3]
    assert await retention.drop_attempts(before=NOON + timedelta(minutes=3), limit=10) == 1
    assert await retention.drop_attempts(before=NOON + timedelta(minutes=3), limit=10) == 0
    [pending] = await stores.due(subscription)
    assert pending.attempt_count == 3


async def test_settled_deliveries_leave_with_their_attempts_and_pending_ones_never(
    stores: Stores, retention: SqlRetentionStore
) -> None:
    subscription = await stores.subscribe()
    delivered, dead, cancelled, pending, fresh = await stores.owed(subscription, events=5)
    await stores.settle(delivered)
    await stores.kill(dead)
    await stores.desk.cancel(cancelled.id, now=NOON)
    await stores.settle(cancelled)  # in flight when it was cancelled
    await stores.fail(pending, due_at=NOON)
    await stores.settle(fresh, at=LATER)
    assert await retention.drop_deliveries(before=LATER, limit=2) == 2
    assert await retention.drop_deliveries(before=LATER, limit=2) == 1
    assert await retention.drop_deliveries(before=LATER, limit=2) == 0
    gone = [await stores.desk.get(delivery.id) for delivery in (delivered, dead, cancelled)]
    assert gone == [None, None, None]
    assert await stores.status(pending) is DeliveryStatus.PENDING
    assert await stores.status(fresh) is DeliveryStatus.DELIVERED
    assert await count(stores, "attempts") == 2


async def test_one_that_was_given_a_fresh_schedule_is_not_settled_any_more(
    stores: Stores, retention: SqlRetentionStore
) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    await stores.kill(delivery)
    await stores.desk.retry(delivery.id, now=NOON)
    assert await retention.drop_deliveries(before=LATER, limit=10) == 0


async def test_a_settlement_of_a_delivery_that_has_left_is_passed_over(
    stores: Stores, retention: SqlRetentionStore
) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    await stores.desk.cancel(delivery.id, now=NOON)
    await retention.drop_deliveries(before=LATER, limit=10)
    await stores.settle(delivery)
    assert await count(stores, "attempts") == 0


# --- what is left behind ---------------------------------------------------------------------------------------------


async def test_a_replay_leaves_when_it_is_old_and_nothing_refers_to_it(
    stores: Stores, retention: SqlRetentionStore
) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    await stores.kill(delivery)
    replay = await stores.desk.redeliver(RedeliverQuery(libraries=None, subscription_id=subscription.id), now=NOON)
    assert await retention.drop_remains(before=LATER, limit=10) == 0
    await stores.settle(delivery)
    await retention.drop_deliveries(before=LATER, limit=10)
    assert await retention.drop_remains(before=NOON, limit=10) == 0
    assert await stores.desk.replay(replay.id) is not None
    assert await retention.drop_remains(before=LATER, limit=10) == 1
    assert await stores.desk.replay(replay.id) is None


async def test_a_replay_that_has_yet_to_make_its_deliveries_stays_however_old_it_is(
    stores: Stores, retention: SqlRetentionStore
) -> None:
    subscription = await stores.subscribe()
    selection = Selection(subscription_id=subscription.id, own=Filter(), libraries=None)
    replays = SqlReplayStore(stores.database)
    stretch = Stretch(after=Cursor(0), last=Cursor(9))
    replay_id = await replays.start(selection, stretch, matched=9, max_per_second=None, now=NOON, at_most=1)
    assert replay_id is not None
    assert await retention.drop_remains(before=LATER, limit=10) == 0
    assert await stores.desk.replay(replay_id) is not None


async def test_a_tombstone_leaves_after_its_notice_and_its_last_delivery(
    stores: Stores, retention: SqlRetentionStore
) -> None:
    subscription = await stores.subscribe()
    await stores.owed(subscription)
    await stores.subscriptions.delete(subscription.id)
    await stores.owe([])
    await drop_events(retention, passed=Cursor(2))
    await retention.drop_deliveries(before=LATER, limit=10)
    assert await retention.drop_remains(before=LATER, limit=10) == 0  # its notice is in the log
    await drop_events(retention)
    assert await retention.drop_remains(before=LATER, limit=10) == 0  # nobody has looked at what it owes
    await stores.subscriptions.cancel_orphans(10)
    assert await count(stores, "delivery_counts") == 1
    assert await retention.drop_remains(before=LATER, limit=10) == 1
    assert await count(stores, "tombstones") == 0
    assert await count(stores, "delivery_counts") == 0


async def test_a_tombstone_stays_while_it_says_who_may_see_a_delivery(
    stores: Stores, retention: SqlRetentionStore
) -> None:
    subscription = await stores.subscribe(libraries={"books"})
    [delivery] = await stores.owed(subscription)
    await stores.subscriptions.delete(subscription.id)
    await stores.owe([])
    await stores.subscriptions.cancel_orphans(10)
    await drop_events(retention)
    assert await retention.drop_remains(before=LATER, limit=10) == 0
    record = await stores.desk.get(delivery.id)
    assert record is not None
    assert record.libraries == BOOKS


# --- meanwhile -------------------------------------------------------------------------------------------------------


class Job:
    """Retention at work, as the gateway runs it, with events that are kept for a minute."""

    def __init__(self, stores: Stores, passed: Any = lambda: EVERYTHING) -> None:
        self.owing: set[str] = set()
        self.looked = 0
        self._retention = Retention(
            SqlRetentionStore(stores.database),
            events_for=timedelta(minutes=1),
            attempts_for=timedelta(minutes=1),
            clock=stores.clock,
            passed=passed,
            expired=self.owing.add,
            sleep=self._sleep,
        )
        self._task = asyncio.create_task(self._retention.run())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _sleep(self, seconds: float) -> None:
        self.looked += seconds >= 1
        await asyncio.sleep(0)


async def test_publishers_readers_listings_and_the_fan_out_stay_right_while_it_works(stores: Stores) -> None:
    subscription = await stores.subscribe()
    fanout = Fanout(stores.log, stores.fanout, stores.subscriptions, offer=lambda _: None, look_seconds=0.001)
    following = asyncio.create_task(fanout.run())
    published: dict[int, str] = {}
    read: list[int] = []
    dead: list[dict[str, Any]] = []
    missed = 0
    is_over = False

    def heard(page: Page) -> None:
        dead.extend(msgspec.json.decode(event.data) for event in page.events if event.type == "gateway.delivery.dead")

    stores.database.on_commit(heard)

    async def publish() -> None:
        for number in range(40):
            stores.clock.advance(seconds=7)
            [receipts] = await stores.log.append([[a_draft(id=f"e{number}-{n}") for n in range(20)]])
            assert not isinstance(receipts, IdTaken)
            published.update({receipt.cursor: receipt.id for receipt in receipts})

    async def follow() -> None:
        """As a stream reads the past: what has left before it came by is a hole that it sees."""
        nonlocal missed
        cursor = Cursor(0)
        while not is_over or cursor < (await stores.log.position()).head:
            page = await stores.log.read(cursor, limit=30)
            looked = job.looked
            await until(lambda: is_over or job.looked > looked)  # noqa: B023 - it is awaited here
            for event in page.events:
                missed += event.cursor - cursor - 1
                cursor = event.cursor
                read.append(cursor)

    async def look_back() -> None:
        while not is_over:
            page = await stores.log.history(HistoryQuery(filter=Filter(), libraries=None, order="asc", limit=100))
            places = [event.cursor for event in page.rows]
            # The gateway's own are not shown; of the others none is missing between the first and the last.
            between = [cursor for cursor in sorted(published) if places and places[0] <= cursor <= places[-1]]
            assert set(between) <= set(places)
            async with stores.database.reading() as connection:
                row = (await connection.execute(text("SELECT head, earliest FROM log"))).one()
                held = (await connection.execute(text("SELECT count(*), min(cursor) FROM events"))).one()
            assert held == (row.head - row.earliest + 1, row.earliest if held[0] else None)

    async with Job(stores, passed=lambda: fanout.cursor) as job:
        others = [asyncio.create_task(follow()), asyncio.create_task(look_back())]
        await publish()
        await until(lambda: fanout.cursor >= max(published))
        is_over = True
        await asyncio.gather(*others)
        looked = job.looked
        stores.clock.advance(seconds=120)
        await until(lambda: job.looked > looked + 2)
    following.cancel()
    await asyncio.wait([following])

    assert read == sorted(set(read))
    assert (len(read) + missed, missed > 0) == (read[-1], True)
    assert job.owing == {subscription.id}
    # Every event has had its one delivery, and every delivery has died of its leaving.
    assert sorted(data["event_id"] for data in dead) == sorted(published.values())
    assert await count(stores, "deliveries WHERE status = 'pending'") == 0


async def test_a_full_disk_is_waited_for(stores: Stores) -> None:
    class Full(SqlRetentionStore):
        failures = 0

        async def drop_events(self, **asked: Any) -> Dropped:
            if self.failures < 3:
                self.failures += 1
                raise StorageUnavailable("The database cannot be written to now: disk I/O error")
            return await super().drop_events(**asked)

    await stores.owe(await stores.publish())
    stores.clock.advance(seconds=120)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0)

    retention = Retention(
        Full(stores.database),
        events_for=timedelta(minutes=1),
        attempts_for=timedelta(minutes=1),
        clock=stores.clock,
        passed=lambda: EVERYTHING,
        expired=lambda _: None,
        sleep=sleep,
    )
    task = asyncio.create_task(retention.run())
    await until(lambda: len(slept) > 4)
    task.cancel()
    await asyncio.wait([task])
    assert slept[:3] == [1.0, 1.0, 1.0]
    assert await kept(stores) == []
