"""The delivery store in SQL keeps what every delivery store promises, whatever the backlog."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from gateway.filters import Filter
from gateway.subscriptions import paused
from tests.builders import NOON, a_draft
from tests.contracts.delivery_store import DeliveryStoreContract
from tests.storage.arrange import SCHEDULE, Stores
from webhooks.deliveries import Attempt, Delivery, DeliveryStatus
from webhooks.endpoints import Endpoint, Ordering, Payload, Status
from webhooks.signing import Secret


class SqlUnderTest:
    now: datetime = NOON

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.store = stores.deliveries

    async def add_endpoint(self, *, idle: timedelta = timedelta(0)) -> str:
        return (await self.stores.subscribe(idle=idle)).id

    async def owe(self, endpoint_id: str, *, library_id: str = "lib", data_bytes: int = 2) -> Delivery:
        pad = b"x" * (data_bytes - 2)
        subscription = await self.stores.subscriptions.get(endpoint_id)
        assert subscription is not None
        [event] = await self.stores.publish(a_draft(library_id=library_id, data=b'"%b"' % pad))
        await self.stores.owe([event], subscription)
        return next(one for one in await self.stores.due(subscription) if one.cursor == event.cursor)

    async def replay(self, endpoint_id: str, *owed: Delivery) -> Sequence[Delivery]:
        return await self.stores.replay(endpoint_id, *owed)

    async def force(self, delivery_id: str) -> None:
        await self.stores.desk.retry(delivery_id, now=self.now)

    async def cancel(self, delivery_id: str) -> None:
        await self.stores.desk.cancel(delivery_id, now=self.now)

    async def pause(self, endpoint_id: str) -> None:
        await self.stores.subscriptions.change(
            endpoint_id, lambda before: paused(before, self.now), "gateway.subscription.updated"
        )

    async def delete(self, endpoint_id: str) -> None:
        await self.stores.subscriptions.delete(endpoint_id)

    async def status(self, delivery_id: str) -> tuple[DeliveryStatus, str | None]:
        record = await self.stores.desk.get(delivery_id)
        assert record is not None
        return record.status, record.reason

    async def attempts(self, delivery_id: str) -> Sequence[Attempt]:
        return await self.stores.desk.attempts(delivery_id)


class TestSqlDeliveryStore(DeliveryStoreContract):
    @pytest.fixture
    def subject(self, stores: Stores) -> SqlUnderTest:
        return SqlUnderTest(stores)


async def test_an_endpoint_is_what_its_subscription_says(stores: Stores) -> None:
    secret = Secret(key=b"k" * 32)
    subscription = await stores.subscribe(
        headers={"x-a": "b"},
        ordering=Ordering.LIBRARY,
        payload=Payload.CLOUDEVENTS,
        max_in_flight=2,
        max_per_second=0.5,
        timeout_seconds=3.0,
        secrets=(secret,),
    )
    found = await stores.deliveries.endpoint(subscription.id)
    assert found is not None
    assert found[0] == Endpoint(
        id=subscription.id,
        url=subscription.url,
        secrets=(secret,),
        headers={"x-a": "b"},
        ordering=Ordering.LIBRARY,
        payload=Payload.CLOUDEVENTS,
        max_in_flight=2,
        max_per_second=0.5,
        timeout_seconds=3.0,
        retry_schedule=SCHEDULE,
        status=Status.ACTIVE,
    )
    assert repr(found[0]).count("k" * 8) == 0


@pytest.mark.parametrize("schedule", [(), (1.0, 2.0)])
async def test_a_schedule_of_its_own_takes_the_place_of_the_gateways(
    stores: Stores, schedule: tuple[float, ...]
) -> None:
    subscription = await stores.subscribe(retry_schedule=schedule)
    found = await stores.deliveries.endpoint(subscription.id)
    assert found is not None
    assert found[0].retry_schedule == schedule


async def test_a_pause_that_is_running_counts_as_idle(stores: Stores) -> None:
    subscription = await stores.subscribe(idle=timedelta(hours=1))
    await stores.subscriptions.change(subscription.id, lambda one: paused(one, NOON), "gateway.subscription.updated")
    stores.clock.advance(seconds=60)
    found = await stores.deliveries.endpoint(subscription.id)
    assert found is not None
    assert (found[0].status, found[0].idle) == (Status.PAUSED, timedelta(hours=1, minutes=1))


async def test_what_is_read_at_once_fits_into_memory(stores: Stores) -> None:
    subscription = await stores.subscribe(ordering=Ordering.LIBRARY)
    large = b'"%b"' % (b"x" * 3 * 2**20)
    await stores.owe(await stores.publish(*(a_draft(data=large) for _ in range(4))), subscription)
    due = await stores.deliveries.due(subscription.id, now=NOON, limit=100)
    assert (len(due.deliveries), due.next_due_at) == (2, NOON)
    assert len(await stores.deliveries.queue(subscription.id, limit=100, per_library=4)) == 2


async def test_one_delivery_is_read_however_large_it_is(stores: Stores) -> None:
    subscription = await stores.subscribe()
    await stores.owe(await stores.publish(a_draft(data=b'"%b"' % (b"x" * 9 * 2**20)), a_draft()), subscription)
    assert len((await stores.deliveries.due(subscription.id, now=NOON, limit=2)).deliveries) == 1


async def test_a_forced_delivery_is_found_behind_any_backlog(stores: Stores) -> None:
    subscription = await stores.subscribe()
    *_, last = await stores.owed(subscription, events=50)
    await stores.desk.retry(last.id, now=NOON)
    due = await stores.deliveries.due(subscription.id, now=NOON, limit=3)
    assert [one.forced for one in due.deliveries] == [True, False, False]
    assert due.deliveries[0].id == last.id
    assert due.next_due_at == NOON


async def test_what_is_sent_carries_the_publishers_trace(stores: Stores) -> None:
    subscription = await stores.subscribe()
    trace = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    moment = NOON - timedelta(days=1)
    await stores.owe(await stores.publish(a_draft(traceparent=trace, timestamp=moment)), subscription)
    [delivery] = await stores.due(subscription)
    assert (delivery.traceparent, delivery.event_time) == (trace, moment)


async def test_the_queue_passes_from_library_to_library_behind_any_backlog(stores: Stores) -> None:
    subscription = await stores.subscribe(filter=Filter())
    drafts = [a_draft(library_id=f"library-{number % 7}") for number in range(700)]
    await stores.owe(await stores.publish(*drafts), subscription)
    later = NOON + timedelta(hours=1)
    [first, *_] = await stores.deliveries.queue(subscription.id, limit=1)
    await stores.fail(first, due_at=later)
    heads = await stores.deliveries.queue(subscription.id, limit=100)
    assert [one.library_id for one in heads] == [f"library-{number}" for number in (1, 2, 3, 4, 5, 6, 0)]
    assert heads[-1] == replace(first, due_at=later, attempt_count=1, first_attempt_at=NOON, idle_before=timedelta(0))


async def test_lanes_that_all_wake_at_once_leave_room_for_whoever_else_reads(stores: Stores) -> None:
    subscription = await stores.subscribe()
    lanes = [asyncio.create_task(stores.due(subscription)) for _ in range(100)]
    await asyncio.sleep(0)  # now each of them has asked
    await stores.log.position()
    assert sum(lane.done() for lane in lanes) < 50
    await asyncio.gather(*lanes)
