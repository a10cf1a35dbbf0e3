"""What every DeliveryStore promises. An adapter passes by subclassing the contract with a `subject` fixture."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from msgspec.structs import replace

from webhooks.deliveries import Attempt, Delivery, DeliveryStatus, Settlement
from webhooks.endpoints import Health, Status
from webhooks.ports import DeliveryStore
from webhooks.verdicts import Dead, Delivered, Reason, Retry, Verdict

SECOND = timedelta(seconds=1)


class DeliveriesUnderTest(Protocol):
    """An empty store, with what a test has to be able to do around it."""

    store: DeliveryStore
    now: datetime
    """The present moment, for the store too."""

    async def add_endpoint(self, *, idle: timedelta = timedelta(0)) -> str:
        """An active endpoint, which was paused for *idle* before; its id."""

    async def owe(self, endpoint_id: str, *, library_id: str = "lib", data_bytes: int = 2) -> Delivery:
        """One more event for it, after all before, due now."""

    async def replay(self, endpoint_id: str, *owed: Delivery) -> Sequence[Delivery]:
        """The events of *owed*, which are of it, once more."""

    async def force(self, delivery_id: str) -> None:
        """A person wants it now."""

    async def cancel(self, delivery_id: str) -> None: ...

    async def pause(self, endpoint_id: str) -> None: ...

    async def delete(self, endpoint_id: str) -> None: ...

    async def status(self, delivery_id: str) -> tuple[DeliveryStatus, str | None]:
        """Its status, and the reason."""

    async def attempts(self, delivery_id: str) -> Sequence[Attempt]: ...


def settled(
    delivery: Delivery,
    verdict: Verdict,
    *,
    at: datetime,
    health: Health | None = None,
    attempted: bool = True,
    disable: str | None = None,
) -> Settlement:
    attempt = Attempt(
        number=delivery.attempt_count + 1,
        started_at=at,
        duration=timedelta(milliseconds=12),
        status_code=204 if isinstance(verdict, Delivered) else 500,
        request_headers={"webhook-id": delivery.event_id},
        response_headers={"server": "x"},
        response_body=b"\x00\xff",
    )
    return Settlement(
        delivery=delivery,
        attempt=attempt if attempted else None,
        verdict=verdict,
        health=health or Health(),
        at=at,
        disable=disable,
    )


class DeliveryStoreContract:
    async def test_an_endpoint_that_is_not_there_is_none(self, subject: DeliveriesUnderTest) -> None:
        assert await subject.store.endpoint("sub_unknown") is None
        assert (await subject.store.due("sub_unknown", now=subject.now, limit=10)).deliveries == ()
        assert await subject.store.queue("sub_unknown", limit=10) == ()

    async def test_a_new_endpoint_is_active_and_healthy(self, subject: DeliveriesUnderTest) -> None:
        endpoint_id = await subject.add_endpoint(idle=timedelta(hours=3))
        found = await subject.store.endpoint(endpoint_id)
        assert found is not None
        endpoint, health = found
        assert (endpoint.id, endpoint.status, endpoint.idle) == (endpoint_id, Status.ACTIVE, timedelta(hours=3))
        assert health == Health()

    async def test_a_delivery_has_all_that_is_needed_to_send_it(self, subject: DeliveriesUnderTest) -> None:
        endpoint_id = await subject.add_endpoint()
        owed = await subject.owe(endpoint_id, library_id="L:1")
        (delivery,) = (await subject.store.due(endpoint_id, now=subject.now, limit=1)).deliveries
        assert delivery == owed
        assert (delivery.endpoint_id, delivery.library_id, delivery.attempt_count) == (endpoint_id, "L:1", 0)
        assert (delivery.first_attempt_at, delivery.forced, delivery.schedule_start) == (None, False, 0)
        assert b'"library_id":"L:1"' in delivery.body

    async def test_what_is_due_comes_forced_first_then_by_due_time_then_by_cursor(
        self, subject: DeliveriesUnderTest
    ) -> None:
        endpoint_id = await subject.add_endpoint()
        first, second, third, fourth, fifth = [await subject.owe(endpoint_id) for _ in range(5)]
        await subject.store.settle(
            [
                settled(first, Retry(subject.now - SECOND), at=subject.now),
                settled(second, Retry(subject.now + 9 * SECOND), at=subject.now),
            ]
        )
        await subject.force(fifth.id)
        due = await subject.store.due(endpoint_id, now=subject.now, limit=10)
        assert [one.id for one in due.deliveries] == [fifth.id, first.id, third.id, fourth.id]
        assert due.next_due_at == subject.now + 9 * SECOND

    async def test_a_limit_that_cuts_the_list_says_that_more_is_due(self, subject: DeliveriesUnderTest) -> None:
        endpoint_id = await subject.add_endpoint()
        owed = [await subject.owe(endpoint_id) for _ in range(3)]
        cut = await subject.store.due(endpoint_id, now=subject.now, limit=2)
        assert [one.id for one in cut.deliveries] == [one.id for one in owed[:2]]
        assert cut.next_due_at is not None
        assert cut.next_due_at <= subject.now
        whole = await subject.store.due(endpoint_id, now=subject.now, limit=3)
        assert (len(whole.deliveries), whole.next_due_at) == (3, None)

    async def test_a_lane_sees_its_own_deliveries_alone(self, subject: DeliveriesUnderTest) -> None:
        one, other = await subject.add_endpoint(), await subject.add_endpoint()
        mine, _ = await subject.owe(one), await subject.owe(other)
        assert (await subject.store.due(one, now=subject.now, limit=10)).deliveries == (mine,)
        assert await subject.store.queue(one, limit=10) == (mine,)

    async def test_the_queue_gives_the_first_of_each_library_due_or_not(self, subject: DeliveriesUnderTest) -> None:
        endpoint_id = await subject.add_endpoint()
        a1, a2, b1, b2, b3 = [await subject.owe(endpoint_id, library_id=library) for library in "aabbb"]
        assert await subject.store.queue(endpoint_id, limit=10) == (a1, b1)
        assert await subject.store.queue(endpoint_id, limit=10, per_library=2) == (a1, a2, b1, b2)
        later = subject.now + 60 * SECOND
        await subject.store.settle([settled(a1, Retry(later), at=subject.now)])
        found = await subject.store.queue(endpoint_id, limit=10, per_library=3)
        assert [one.id for one in found] == [b1.id, b2.id, b3.id, a1.id, a2.id]
        assert found[3].due_at == later
        assert [one.id for one in await subject.store.queue(endpoint_id, limit=2, per_library=3)] == [b1.id, b2.id]

    async def test_the_queue_goes_on_with_the_next_when_the_first_is_settled(
        self, subject: DeliveriesUnderTest
    ) -> None:
        endpoint_id = await subject.add_endpoint()
        first, second, third = [await subject.owe(endpoint_id) for _ in range(3)]
        await subject.store.settle([settled(first, Delivered(), at=subject.now)])
        assert await subject.store.queue(endpoint_id, limit=1) == (second,)
        await subject.store.settle([settled(second, Dead(Reason.EXHAUSTED), at=subject.now)])
        assert await subject.store.queue(endpoint_id, limit=1) == (third,)

    async def test_what_replays_made_is_in_a_line_of_its_own(self, subject: DeliveriesUnderTest) -> None:
        endpoint_id = await subject.add_endpoint()
        live = [await subject.owe(endpoint_id, library_id=library) for library in "aab"]
        again = await subject.replay(endpoint_id, *live)
        assert {(one.replayed, one.replay_id is None) for one in again} == {(True, False)}
        due = await subject.store.due(endpoint_id, now=subject.now, limit=10)
        assert (list(due.deliveries), due.next_due_at) == (live, None)
        behind = await subject.store.due(endpoint_id, now=subject.now, limit=10, replayed=True)
        assert (list(behind.deliveries), behind.next_due_at) == (list(again), None)
        assert list(await subject.store.queue(endpoint_id, limit=10, per_library=9)) == live
        queue = await subject.store.queue(endpoint_id, limit=10, per_library=9, replayed=True)
        assert list(queue) == list(again)
        await subject.store.settle([settled(one, Delivered(), at=subject.now) for one in live])
        assert dict(await subject.store.lanes()) == {endpoint_id: again[0].due_at}
        later = subject.now + 60 * SECOND
        await subject.store.settle([settled(one, Retry(later), at=subject.now) for one in again])
        assert dict(await subject.store.lanes()) == {endpoint_id: later}
        assert (await subject.store.due(endpoint_id, now=subject.now, limit=1)).next_due_at is None
        cut = await subject.store.due(endpoint_id, now=subject.now, limit=1, replayed=True)
        assert cut.next_due_at == later

    async def test_lanes_are_the_active_endpoints_that_owe_something(self, subject: DeliveriesUnderTest) -> None:
        idle, busy, paused = [await subject.add_endpoint() for _ in range(3)]
        delivery = await subject.owe(busy)
        await subject.owe(paused)
        await subject.pause(paused)
        assert dict(await subject.store.lanes()) == {busy: delivery.due_at}
        later = subject.now + 60 * SECOND
        await subject.store.settle([settled(delivery, Retry(later), at=subject.now)])
        assert dict(await subject.store.lanes()) == {busy: later}
        await subject.store.settle([settled(delivery, Delivered(), at=subject.now)])
        assert dict(await subject.store.lanes()) == {}
        assert idle not in await subject.store.lanes()

    async def test_delivered_and_dead_ones_are_owed_no_more(self, subject: DeliveriesUnderTest) -> None:
        endpoint_id = await subject.add_endpoint()
        good, bad, old = [await subject.owe(endpoint_id) for _ in range(3)]
        await subject.store.settle(
            [
                settled(good, Delivered(), at=subject.now),
                settled(bad, Dead(Reason.GONE), at=subject.now),
                settled(old, Dead(Reason.EXPIRED), at=subject.now, attempted=False),
            ]
        )
        assert await subject.status(good.id) == (DeliveryStatus.DELIVERED, None)
        assert await subject.status(bad.id) == (DeliveryStatus.DEAD, "gone")
        assert await subject.status(old.id) == (DeliveryStatus.DEAD, "expired")
        assert (await subject.store.due(endpoint_id, now=subject.now, limit=10)).deliveries == ()
        assert [len(await subject.attempts(one.id)) for one in (good, bad, old)] == [1, 1, 0]

    async def test_a_retry_counts_and_remembers_when_it_was_first_tried(self, subject: DeliveriesUnderTest) -> None:
        endpoint_id = await subject.add_endpoint(idle=timedelta(hours=2))
        owed = await subject.owe(endpoint_id)
        await subject.force(owed.id)
        first_at, again_at = subject.now, subject.now + 5 * SECOND
        await subject.store.settle([settled(owed, Retry(again_at), at=first_at)])
        (tried,) = (await subject.store.due(endpoint_id, now=again_at, limit=1)).deliveries
        assert (tried.attempt_count, tried.due_at, tried.forced) == (1, again_at, False)
        assert (tried.first_attempt_at, tried.idle_before) == (first_at, timedelta(hours=2))
        await subject.store.settle([settled(tried, Retry(again_at + SECOND), at=again_at)])
        (tried,) = (await subject.store.due(endpoint_id, now=again_at + SECOND, limit=1)).deliveries
        assert (tried.attempt_count, tried.first_attempt_at) == (2, first_at)
        assert [attempt.number for attempt in await subject.attempts(owed.id)] == [1, 2]

    async def test_settling_again_changes_nothing(self, subject: DeliveriesUnderTest) -> None:
        endpoint_id = await subject.add_endpoint()
        one, other = await subject.owe(endpoint_id), await subject.owe(endpoint_id)
        batch = [
            settled(one, Delivered(), at=subject.now),
            settled(other, Retry(subject.now + SECOND), at=subject.now),
        ]
        await subject.store.settle(batch)
        await subject.store.settle(batch)
        assert await subject.status(one.id) == (DeliveryStatus.DELIVERED, None)
        (left,) = (await subject.store.due(endpoint_id, now=subject.now + SECOND, limit=10)).deliveries
        assert (left.id, left.attempt_count) == (other.id, 1)
        assert len(await subject.attempts(one.id)) == 1

    async def test_one_that_was_cancelled_meanwhile_stays_so_and_gets_the_attempt(
        self, subject: DeliveriesUnderTest
    ) -> None:
        endpoint_id = await subject.add_endpoint()
        owed = await subject.owe(endpoint_id)
        await subject.cancel(owed.id)
        await subject.store.settle([settled(owed, Delivered(), at=subject.now)])
        assert await subject.status(owed.id) == (DeliveryStatus.CANCELLED, "cancelled")
        assert [attempt.number for attempt in await subject.attempts(owed.id)] == [1]

    async def test_one_that_is_gone_is_passed_over(self, subject: DeliveriesUnderTest) -> None:
        endpoint_id = await subject.add_endpoint()
        owed = await subject.owe(endpoint_id)
        gone = replace(owed, id="dlv_gone")
        elsewhere = replace(owed, id="dlv_elsewhere", endpoint_id="sub_gone")
        await subject.store.settle(
            [settled(one, Delivered(), at=subject.now) for one in (gone, elsewhere, owed)],
        )
        assert await subject.status(owed.id) == (DeliveryStatus.DELIVERED, None)

    async def test_health_is_kept_as_it_was_last_settled(self, subject: DeliveriesUnderTest) -> None:
        endpoint_id = await subject.add_endpoint()
        one, other = await subject.owe(endpoint_id), await subject.owe(endpoint_id)
        ill = Health(
            failing_since=subject.now,
            failing_told=True,
            consecutive_failures=11,
            unreachable=10,
            circuit_trips=2,
            circuit_open_until=subject.now + 20 * SECOND,
            held_until=subject.now + 60 * SECOND,
        )
        again = Retry(subject.now + SECOND)
        await subject.store.settle(
            [
                settled(one, again, at=subject.now, health=Health(consecutive_failures=10)),
                settled(other, again, at=subject.now, health=ill),
            ]
        )
        found = await subject.store.endpoint(endpoint_id)
        assert found is not None
        assert found[1] == ill

    async def test_an_endpoint_is_disabled_with_the_settlement_that_says_so(self, subject: DeliveriesUnderTest) -> None:
        endpoint_id = await subject.add_endpoint()
        owed, waiting = await subject.owe(endpoint_id), await subject.owe(endpoint_id)
        await subject.store.settle([settled(owed, Dead(Reason.GONE, disable="gone"), at=subject.now, disable="gone")])
        found = await subject.store.endpoint(endpoint_id)
        assert found is not None
        assert found[0].status is Status.DISABLED
        assert dict(await subject.store.lanes()) == {}
        assert await subject.status(waiting.id) == (DeliveryStatus.PENDING, None)

    async def test_a_deleted_endpoint_owes_nothing(self, subject: DeliveriesUnderTest) -> None:
        endpoint_id = await subject.add_endpoint()
        await subject.owe(endpoint_id)
        await subject.delete(endpoint_id)
        assert await subject.store.endpoint(endpoint_id) is None
        assert dict(await subject.store.lanes()) == {}

    async def test_a_backlog_of_large_events_is_read_in_parts_and_completely(
        self, subject: DeliveriesUnderTest
    ) -> None:
        endpoint_id = await subject.add_endpoint()
        owed = [await subject.owe(endpoint_id, data_bytes=250_000) for _ in range(5)]
        left = {one.id for one in owed}
        while left:
            due = await subject.store.due(endpoint_id, now=subject.now, limit=100)
            assert due.deliveries
            await subject.store.settle([settled(one, Delivered(), at=subject.now) for one in due.deliveries])
            left -= {one.id for one in due.deliveries}
        assert (await subject.store.due(endpoint_id, now=subject.now, limit=100)).next_due_at is None

    async def test_nothing_to_settle_is_no_fault(self, subject: DeliveriesUnderTest) -> None:
        await subject.store.settle([])
