"""Lanes and their dispatcher, in virtual time."""

import asyncio
from collections.abc import Iterator, MutableMapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from tests.fakes.clock import START, FakeClock, quiet, until
from tests.fakes.deliveries import Answer, MemoryDeliveryStore, a_delivery, an_endpoint
from tests.fakes.world import World
from webhooks.deliveries import Delivery, DeliveryStatus, Failure
from webhooks.endpoints import Health, Ordering, Status
from webhooks.lane import LARGEST_WINDOW
from webhooks.rules import Rules
from webhooks.settling import Settler


@pytest.fixture
def world() -> World:
    return World()


async def test_what_is_owed_at_the_start_is_sent_without_being_asked(world: World) -> None:
    world.store.add(an_endpoint())
    world.owe(100)
    async with world.running():
        await world.clock.advance(1)
    assert world.count(DeliveryStatus.DELIVERED) == 100
    assert sorted(world.receiver.events) == sorted({f"evt_{number}" for number in range(1, 101)})


async def test_new_work_is_sent_at_once_when_the_lane_is_woken(world: World) -> None:
    world.store.add(an_endpoint())
    async with world.running():
        world.owe(3)
        world.dispatcher.wake(["sub_1"])
        await quiet()
        assert world.count(DeliveryStatus.DELIVERED) == 3
        world.owe(2, first=4)
        world.dispatcher.wake(["sub_1"])
        await quiet()
        assert world.count(DeliveryStatus.DELIVERED) == 5


async def test_what_is_offered_fresh_is_sent_without_a_read(world: World) -> None:
    world.store.add(an_endpoint())
    async with world.running():
        world.owe(1)
        world.dispatcher.wake(["sub_1"])
        await quiet()
        reads = world.store.reads
        for first in (2, 5, 8):
            world.dispatcher.offer({"sub_1": world.owe(3, first=first)})
            await quiet()
        assert world.store.reads == reads
        assert world.count(DeliveryStatus.DELIVERED) == 10
    assert sorted(world.receiver.events) == sorted(f"evt_{number}" for number in range(1, 11))


async def test_an_offer_to_a_lane_that_sleeps_wakes_it(world: World) -> None:
    world.store.add(an_endpoint())
    async with world.running():
        world.dispatcher.offer({"sub_1": world.owe(3)})
        await quiet()
        assert world.count(DeliveryStatus.DELIVERED) == 3


async def test_an_offer_beyond_the_window_is_left_to_the_store_and_sent_in_its_turn(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=2))
    async with world.running():
        world.dispatcher.offer({"sub_1": world.owe(1)})
        await quiet()
        world.dispatcher.offer({"sub_1": world.owe(500, first=2)})
        world.dispatcher.offer({"sub_1": world.owe(1, first=502)})
        await until(lambda: world.count(DeliveryStatus.DELIVERED) == 502)
    assert world.receiver.events == [f"evt_{number}" for number in range(1, 503)]


async def test_an_offer_to_an_ordered_lane_keeps_the_order_of_each_library(world: World) -> None:
    world.store.add(an_endpoint(ordering=Ordering.LIBRARY))
    async with world.running():
        for first in range(1, 40, 3):
            world.dispatcher.offer({"sub_1": world.owe(3, first=first)})
        await quiet()
        await world.clock.advance(1)
    assert world.receiver.events == [f"evt_{number}" for number in range(1, 40)]


async def test_an_offer_during_a_read_is_neither_lost_nor_sent_twice(world: World) -> None:
    world.store.add(an_endpoint())
    async with world.running():
        for first in range(1, 60, 2):
            world.dispatcher.wake(["sub_1"])
            await asyncio.sleep(0)
            world.dispatcher.offer({"sub_1": world.owe(2, first=first)})
        await quiet()
        await world.clock.advance(1)
    assert sorted(world.receiver.events) == sorted(f"evt_{number}" for number in range(1, 61))


async def test_an_offer_to_a_paused_endpoint_waits_for_its_resumption(world: World) -> None:
    world.store.add(an_endpoint(status=Status.PAUSED))
    async with world.running():
        world.dispatcher.offer({"sub_1": world.owe(2)})
        await quiet()
        assert world.receiver.events == []
        world.store.add(an_endpoint())
        world.dispatcher.changed("sub_1")
        await quiet()
    assert sorted(world.receiver.events) == ["evt_1", "evt_2"]


async def test_the_sweep_finds_what_nobody_woke(world: World) -> None:
    world.store.add(an_endpoint())
    async with world.running():
        world.owe(1)
        await world.clock.advance(1.1)
        assert world.count(DeliveryStatus.DELIVERED) == 1
        world.owe(1, first=2)
        await world.clock.advance(1.1)
        assert world.count(DeliveryStatus.DELIVERED) == 2


async def test_a_failed_delivery_is_tried_at_the_moments_of_the_schedule_and_is_dead_after_them(world: World) -> None:
    world.store.add(an_endpoint(retry_schedule=(5, 300, 1_800)))
    world.owe(1)
    world.receiver.answer = lambda _: 500
    async with world.running():
        await world.clock.advance(3_000)
    assert world.receiver.seconds() == [0, 5, 305, 2_105]
    assert world.count(DeliveryStatus.DEAD) == 1
    assert [row.reason for row in world.store.rows.values()] == ["exhausted"]


async def test_no_more_are_in_flight_than_the_endpoint_takes(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=3))
    world.owe(50)
    world.receiver.takes_seconds = 1
    async with world.running():
        await world.clock.advance(60)
    assert world.receiver.most_in_flight == 3
    assert world.count(DeliveryStatus.DELIVERED) == 50


async def test_attempts_of_a_limited_endpoint_are_evenly_spread_and_exactly_as_many_as_asked(world: World) -> None:
    world.store.add(an_endpoint(max_per_second=4))
    world.owe(100)
    async with world.running():
        await world.clock.advance(9.99)
        assert len(world.receiver.sent) == 40
        await world.clock.advance(100)
    assert world.count(DeliveryStatus.DELIVERED) == 100
    gaps = {round(later - earlier, 6) for earlier, later in pairwise(world.receiver.seconds())}
    assert gaps == {0.25}
    assert 16 <= world.store.most_read <= 20


async def test_a_very_slow_rate_is_kept_though_the_lane_has_nothing_to_do_in_between(world: World) -> None:
    world.store.add(an_endpoint(max_per_second=0.01))
    world.owe(4)
    async with world.running():
        await world.clock.advance(350)
    assert world.receiver.seconds() == [0, 100, 200, 300]


async def test_of_one_library_the_next_waits_until_the_one_ahead_is_delivered_or_dead(world: World) -> None:
    world.store.add(an_endpoint(ordering=Ordering.LIBRARY, retry_schedule=(5, 5)))
    world.owe(3, library_id="a")
    world.owe(3, first=4, library_id="b")
    world.receiver.answer = lambda delivery: 500 if delivery.event_id == "evt_1" else 204
    async with world.running():
        await world.clock.advance(9)
        assert [event for event in world.receiver.events if event in {"evt_1", "evt_2", "evt_3"}] == ["evt_1", "evt_1"]
        assert [event for event in world.receiver.events if event in {"evt_4", "evt_5", "evt_6"}] == [
            "evt_4",
            "evt_5",
            "evt_6",
        ]
        await world.clock.advance(2)
    assert world.receiver.events[-3:] == ["evt_1", "evt_2", "evt_3"]
    assert world.store.status("dlv_sub_1_000001") is DeliveryStatus.DEAD
    assert world.count(DeliveryStatus.DELIVERED) == 5


async def test_a_long_ordered_backlog_arrives_in_order_though_receivers_fail_at_random(world: World) -> None:
    world.store.add(an_endpoint(ordering=Ordering.LIBRARY, retry_schedule=(1,) * 50))
    for number in range(1, 301):
        world.store.add(a_delivery(number, library_id=f"lib_{number % 3}"))
    received: dict[str, list[int]] = {}
    tries = 0

    def answer(delivery: Delivery) -> int:
        nonlocal tries
        tries += 1
        if tries * 7919 % 10 < 3:
            return 500
        received.setdefault(delivery.library_id, []).append(delivery.cursor)
        return 204

    world.receiver.answer = answer
    world.receiver.takes_seconds = 0.01
    async with world.running():
        await world.clock.advance(400)
    assert world.count(DeliveryStatus.DELIVERED) == 300
    assert all(cursors == sorted(cursors) and len(cursors) == 100 for cursors in received.values())


async def test_retry_after_holds_the_whole_endpoint(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=1))
    world.owe(3)
    answers: Iterator[Answer] = iter([(429, "60"), 204, 204, 204])
    world.receiver.answer = lambda _: next(answers)
    async with world.running():
        await world.clock.advance(59)
        assert world.receiver.seconds() == [0]
        assert world.store.healths["sub_1"].held_until == START + timedelta(seconds=60)
        await world.clock.advance(2)
        assert world.receiver.seconds()[1] == 60
        assert world.count(DeliveryStatus.DELIVERED) == 3


class HastyClock(FakeClock):
    """Its timers fire a little early, as real ones do, and time passes with each look at it."""

    def __init__(self, early: timedelta) -> None:
        super().__init__()
        self._early = early

    def now(self) -> datetime:
        self._now += timedelta(microseconds=100)
        return self._now

    async def wait(self, event: asyncio.Event, until: datetime | None) -> None:
        await super().wait(event, None if until is None else max(self._now, until - self._early))


@pytest.mark.parametrize("early_micros", range(50, 1_250, 100))
async def test_a_hold_that_ends_just_while_its_lane_looks_is_not_waited_for_for_ever(early_micros: int) -> None:
    world = World(clock=HastyClock(timedelta(microseconds=early_micros)))
    world.store.add(an_endpoint(retry_schedule=(1, 1)))
    world.receiver.answer = lambda _: (429, "2") if len(world.receiver.sent) == 1 else 204
    async with world.running():
        for number in (1, 2):
            world.dispatcher.offer({"sub_1": world.owe(1, first=number)})
            await quiet()
        await world.clock.advance(20)
    assert world.count(DeliveryStatus.DELIVERED) == 2


async def test_a_forced_delivery_goes_past_the_hold_and_the_schedule_but_not_past_a_pause(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=1))
    first, second = world.owe(2)
    world.receiver.answer = lambda delivery: 204 if delivery.forced else (503, "3600")
    async with world.running():
        await world.clock.advance(0.1)
        assert len(world.receiver.sent) == 1
        world.store.rows[second.id].delivery = replace(second, forced=True)
        world.dispatcher.changed("sub_1")
        await quiet()
        assert world.store.status(second.id) is DeliveryStatus.DELIVERED
        world.store.endpoints["sub_1"] = replace(world.store.endpoints["sub_1"], status=Status.PAUSED)
        row = world.store.rows[first.id]
        row.delivery = replace(row.delivery, forced=True, due_at=world.clock.now())
        world.dispatcher.changed("sub_1")
        await world.clock.advance(10)
        assert len(world.receiver.sent) == 2
        world.store.endpoints["sub_1"] = replace(world.store.endpoints["sub_1"], status=Status.ACTIVE)
        world.dispatcher.changed("sub_1")
        await quiet()
        assert world.store.status(first.id) is DeliveryStatus.DELIVERED


async def test_a_forced_delivery_is_found_within_a_second_though_its_lane_is_only_woken(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=1))
    _, second = world.owe(2)
    world.receiver.answer = lambda delivery: 204 if delivery.forced else (503, "3600")
    async with world.running():
        await world.clock.advance(300)
        world.store.rows[second.id].delivery = replace(second, forced=True)
        world.dispatcher.wake(["sub_1"])
        await world.clock.advance(1.1)
        assert world.store.status(second.id) is DeliveryStatus.DELIVERED


async def test_the_circuit_opens_after_ten_failures_in_a_row_and_probes_one_at_a_time(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=8))
    world.owe(100)
    world.receiver.answer = lambda _: Failure.UNREACHABLE
    async with world.running():
        await world.clock.advance(9)
        at_once = len(world.receiver.sent)
        assert 10 <= at_once <= 13
        await world.clock.advance(3)
        assert len(world.receiver.sent) == at_once + 1
        await world.clock.advance(15)
        assert len(world.receiver.sent) == at_once + 1
        assert world.store.healths["sub_1"].circuit_trips == 2
        world.receiver.answer = lambda _: 204
        await world.clock.advance(400)
    assert world.count(DeliveryStatus.DELIVERED) == 100
    assert max(row.delivery.attempt_count for row in world.store.rows.values()) <= 3


async def test_after_a_circuit_the_backlog_comes_as_a_ramp(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=64))
    health = Health(unreachable=10, circuit_trips=1, circuit_open_until=START + timedelta(seconds=5))
    world.store.healths["sub_1"] = health
    world.owe(500)
    world.receiver.takes_seconds = 1
    async with world.running():
        await world.clock.advance(5.5)
        assert world.receiver.in_flight == 1
        await world.clock.advance(1)
        assert world.receiver.in_flight == 2
        await world.clock.advance(1)
        assert world.receiver.in_flight == 4
        await world.clock.advance(60)
    assert world.count(DeliveryStatus.DELIVERED) == 500


async def test_a_lane_that_only_times_out_shrinks_to_one_in_flight(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=8))
    world.store.add(*[a_delivery(number) for number in range(1, 100)])
    world.receiver.silent.add("sub_1")
    async with world.running():
        await world.clock.advance(14)
        assert world.receiver.in_flight == 8
        await world.clock.advance(2)
        assert world.receiver.in_flight == 1


async def test_fifty_lanes_that_never_answer_do_not_delay_a_healthy_one() -> None:
    world = World(most_at_once=20)
    for number in range(50):
        world.store.add(an_endpoint(f"silent_{number}"))
        world.owe(20, f"silent_{number}")
        world.receiver.silent.add(f"silent_{number}")
    world.store.add(an_endpoint("healthy"))
    async with world.running():
        await world.clock.advance(1)
        world.owe(200, "healthy")
        world.dispatcher.wake(["healthy"])
        await until(lambda: world.count(DeliveryStatus.DELIVERED) == 200)
        healthy = [moment for moment, delivery in world.receiver.sent if delivery.endpoint_id == "healthy"]
        assert set(healthy) == {world.clock.now()}


async def test_the_places_beyond_the_first_go_round_among_the_lanes_that_want_them() -> None:
    world = World(most_at_once=4)
    for name in ("a", "b", "c"):
        world.store.add(an_endpoint(name))
    world.owe(200, "a")
    world.receiver.takes_seconds = 1
    async with world.running():
        await world.clock.advance(3)
        assert world.receiver.most_in_flight == 5
        world.owe(40, "b")
        world.owe(40, "c")
        world.dispatcher.wake(["b", "c"])
        await world.clock.advance(20)
        assert world.receiver.most_in_flight <= 7
        sent = [delivery.endpoint_id for _, delivery in world.receiver.sent]
        assert min(sent.count("b"), sent.count("c")) >= 30


async def test_a_paused_endpoint_sends_nothing_and_drains_when_it_is_resumed(world: World) -> None:
    world.store.add(an_endpoint(status=Status.PAUSED))
    world.owe(5)
    async with world.running():
        world.dispatcher.wake(["sub_1"])
        await world.clock.advance(100)
        assert world.receiver.sent == []
        world.store.add(an_endpoint())
        world.dispatcher.changed("sub_1")
        await quiet()
        assert world.count(DeliveryStatus.DELIVERED) == 5


async def test_a_pause_stops_what_waits_and_lets_attempts_in_flight_end(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=2))
    world.owe(10)
    world.receiver.takes_seconds = 5
    async with world.running():
        world.store.add(an_endpoint(max_in_flight=2, status=Status.PAUSED))
        world.dispatcher.changed("sub_1")
        await world.clock.advance(60)
        assert len(world.receiver.sent) == 2
        assert world.count(DeliveryStatus.DELIVERED) == 2


async def test_a_deleted_endpoint_is_sent_nothing_more(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=1))
    world.owe(10)
    world.receiver.takes_seconds = 5
    async with world.running():
        del world.store.endpoints["sub_1"]
        world.dispatcher.changed("sub_1")
        await world.clock.advance(60)
        assert len(world.receiver.sent) == 1
        world.dispatcher.wake(["sub_1"])
        await quiet()
        assert world.dispatcher.in_flight == 0


async def test_a_delivery_that_was_cancelled_while_it_waited_is_not_sent(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=1))
    deliveries = world.owe(3)
    world.receiver.takes_seconds = 5
    async with world.running():
        world.store.rows[deliveries[1].id].status = DeliveryStatus.CANCELLED
        world.dispatcher.changed("sub_1")
        await world.clock.advance(60)
    assert world.receiver.events == ["evt_1", "evt_3"]


async def test_410_ends_the_delivery_and_disables_the_endpoint(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=1))
    world.owe(3)
    world.receiver.answer = lambda _: 410
    async with world.running():
        await world.clock.advance(60)
    assert len(world.receiver.sent) == 1
    assert world.store.notices == [("disabled", "gone")]
    assert world.store.rows["dlv_sub_1_000001"].reason == "gone"
    assert world.count(DeliveryStatus.PENDING) == 2


async def test_an_endpoint_whose_every_attempt_fails_is_told_half_way_and_then_disabled() -> None:
    world = World(rules=Rules(disable_after=timedelta(seconds=100)))
    world.store.add(an_endpoint(retry_schedule=(10,) * 100))
    world.owe(1)
    world.receiver.answer = lambda _: 500
    async with world.running():
        await world.clock.advance(59)
        assert world.store.notices == [("failing", "sub_1")]
        await world.clock.advance(200)
    assert world.store.notices == [("failing", "sub_1"), ("disabled", "failing")]
    assert world.receiver.seconds()[-1] == 100


async def test_time_paused_does_not_make_a_delivery_too_old() -> None:
    world = World(rules=Rules(max_age=timedelta(seconds=100)))
    world.store.add(an_endpoint())
    tried = replace(a_delivery(), attempt_count=1, first_attempt_at=START - timedelta(seconds=150))
    old = replace(a_delivery(2), attempt_count=1, first_attempt_at=START - timedelta(seconds=250))
    world.store.add(tried, old, an_endpoint(idle=timedelta(seconds=120)))
    async with world.running():
        await world.clock.advance(1)
    assert world.receiver.events == ["evt_1"]
    assert world.store.rows[old.id].reason == "expired"
    assert world.store.rows[old.id].attempts == {}


async def test_a_store_that_fails_for_a_moment_is_told_again(world: World) -> None:
    world.store.add(an_endpoint())
    world.owe(3)
    world.store.fail_settling = ConnectionError("the database is away")
    async with world.running():
        assert len(world.receiver.sent) == 3
        await world.clock.advance(0.5)
        world.store.fail_settling = None
        await world.clock.advance(2)
        assert world.count(DeliveryStatus.DELIVERED) == 3
        assert len(world.receiver.sent) == 3


async def test_while_the_store_takes_nothing_nothing_more_is_sent_and_nothing_is_lost(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=2))
    world.owe(200)
    world.receiver.takes_seconds = 0.1
    world.store.fail_settling = ConnectionError("the disk is full")
    async with world.running():
        await world.clock.advance(600)
        sent_meanwhile = len(world.receiver.sent)
        assert sent_meanwhile < 150
        assert world.store.settles < 600 / 3 * 9
        world.store.fail_settling = None
        await world.clock.advance(90)
        assert world.count(DeliveryStatus.DELIVERED) == 200
        assert len(world.receiver.sent) < 200 + sent_meanwhile


async def test_a_settlement_that_the_store_refuses_harms_no_other_and_is_sent_again_later(world: World) -> None:
    world.store.add(an_endpoint())
    world.owe(5)
    world.store.refused.add("dlv_sub_1_000003")
    async with world.running():
        await world.clock.advance(50)
        assert world.count(DeliveryStatus.DELIVERED) == 4
        assert len(world.receiver.sent) == 5
        world.store.refused.clear()
        await world.clock.advance(20)
        assert world.count(DeliveryStatus.DELIVERED) == 5
        assert len(world.receiver.sent) == 6


async def test_several_refused_settlements_do_not_look_like_a_store_that_is_away(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=20))
    world.owe(20)
    world.store.refused = {f"dlv_sub_1_{number:06}" for number in (1, 2, 4, 5, 6, 7, 8, 9, 20)}
    async with world.running():
        await world.clock.advance(50)
        assert world.count(DeliveryStatus.DELIVERED) == 11
        assert len(world.receiver.sent) == 20


async def test_a_lone_settlement_that_the_store_refuses_does_not_stop_the_rest_of_the_world(world: World) -> None:
    world.store.add(an_endpoint(), an_endpoint("other"))
    world.owe(1)
    world.store.refused.add("dlv_sub_1_000001")
    async with world.running():
        await world.clock.advance(10)
        world.owe(5, "other")
        world.dispatcher.wake(["other"])
        await world.clock.advance(30)
        assert world.count(DeliveryStatus.DELIVERED) == 5
        world.store.refused.clear()
        await world.clock.advance(70)
        assert world.count(DeliveryStatus.DELIVERED) == 6


async def test_a_store_that_cannot_be_read_is_asked_again(world: World) -> None:
    world.store.add(an_endpoint())
    async with world.running():
        world.store.fail_reads = ConnectionError("the database is away")
        world.owe(2)
        world.dispatcher.wake(["sub_1"])
        await world.clock.advance(10)
        assert world.receiver.sent == []
        world.store.fail_reads = None
        await world.clock.advance(5)
        assert world.count(DeliveryStatus.DELIVERED) == 2


async def test_however_long_the_backlog_only_a_window_of_it_is_in_memory(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=4))
    world.owe(5_000)
    world.receiver.takes_seconds = 0.01
    async with world.running():
        await world.clock.advance(14)
    assert world.count(DeliveryStatus.DELIVERED) == 5_000
    assert world.store.most_read <= LARGEST_WINDOW * 2
    assert world.store.reads < 120


async def test_large_bodies_make_the_window_small(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=2))
    world.owe(200, body=b"x" * 256 * 1024)
    world.receiver.takes_seconds = 0.01
    async with world.running():
        await world.clock.advance(2)
    assert world.count(DeliveryStatus.DELIVERED) == 200
    assert world.store.most_read <= 16


async def test_a_drain_lets_attempts_end_and_breaks_off_those_that_do_not(world: World) -> None:
    world.store.add(an_endpoint("slow", max_in_flight=1), an_endpoint("quick"))
    world.owe(5, "slow")
    world.receiver.silent.add("slow")
    task = asyncio.create_task(world.dispatcher.run())
    await quiet()
    assert world.receiver.in_flight == 1
    world.owe(1, "quick")
    world.dispatcher.wake(["quick"])
    await quiet()
    await world.dispatcher.drain(patience_seconds=0.01)
    await task
    assert world.receiver.broken_off == 1
    assert world.store.status("dlv_quick_000001") is DeliveryStatus.DELIVERED
    slow = world.store.rows["dlv_slow_000001"]
    assert (slow.status, slow.delivery.attempt_count, slow.attempts) == (DeliveryStatus.PENDING, 0, {})
    world.dispatcher.wake(["slow"])
    await quiet()
    assert world.receiver.in_flight == 0


async def test_a_fault_of_ours_with_one_delivery_does_not_stop_its_neighbours(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=1))
    world.owe(3)

    def answer(delivery: Delivery) -> int:
        if delivery.event_id == "evt_1":
            raise RuntimeError("a bug")
        return 204

    world.receiver.answer = answer
    async with world.running():
        await world.clock.advance(30)
        assert world.count(DeliveryStatus.DELIVERED) == 2
        world.receiver.answer = lambda _: 204
        await world.clock.advance(300)
    assert world.count(DeliveryStatus.DELIVERED) == 3


async def test_an_idle_lane_ends_and_starts_again_when_it_is_woken(world: World) -> None:
    world.store.add(an_endpoint())
    world.owe(1)
    async with world.running():
        await world.clock.advance(60)
        assert world.dispatcher.lanes == 0
        world.owe(1, first=2)
        world.dispatcher.wake(["sub_1"])
        await quiet()
        assert world.count(DeliveryStatus.DELIVERED) == 2


async def test_the_order_can_change_while_deliveries_are_in_flight(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=2))
    world.owe(6)
    world.receiver.takes_seconds = 1
    async with world.running():
        await world.clock.advance(0.5)
        world.store.add(an_endpoint(max_in_flight=2, ordering=Ordering.LIBRARY))
        world.dispatcher.changed("sub_1")
        await world.clock.advance(1)
        assert world.receiver.in_flight == 1
        await world.clock.advance(20)
    assert world.receiver.events[2:] == ["evt_3", "evt_4", "evt_5", "evt_6"]
    assert world.count(DeliveryStatus.DELIVERED) == 6


async def test_an_endpoint_that_takes_many_at_once_gets_as_many(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=100))
    world.owe(300)
    world.receiver.takes_seconds = 1
    async with world.running():
        await world.clock.advance(0.5)
        assert world.receiver.in_flight == 100


async def test_what_is_due_much_later_keeps_no_lane_awake(world: World) -> None:
    world.store.add(an_endpoint())
    world.owe(1, due_at=START + timedelta(hours=1))
    async with world.running():
        await world.clock.advance(60)
        assert (world.dispatcher.lanes, world.store.reads) == (0, 0)
        await world.clock.advance(3_540)
        assert world.receiver.seconds() == [3_600]


async def test_a_pause_that_could_not_be_read_at_once_is_heeded_all_the_same(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=1))
    world.owe(10)
    world.receiver.takes_seconds = 1
    async with world.running():
        world.store.add(an_endpoint(max_in_flight=1, status=Status.PAUSED))
        world.store.fail_reads = ConnectionError("the database is away")
        world.dispatcher.changed("sub_1")
        await world.clock.advance(5)
        world.store.fail_reads = None
        await world.clock.advance(30)
        assert len(world.receiver.sent) == 1


async def test_an_endpoint_that_leads_elsewhere_is_tried_at_once_whatever_was_learnt_of_the_old_place(
    world: World,
) -> None:
    world.store.add(an_endpoint(max_in_flight=1))
    world.owe(3)
    world.receiver.answer = lambda _: (503, "3600")
    async with world.running():
        await world.clock.advance(5)
        assert len(world.receiver.sent) == 1
        world.receiver.answer = lambda _: 204
        world.store.add(an_endpoint(max_in_flight=1, url="https://example.org/"))
        world.store.healths["sub_1"] = Health()
        world.dispatcher.changed("sub_1")
        await world.clock.advance(1)
        assert world.count(DeliveryStatus.DELIVERED) == 2
        await world.clock.advance(3_600)
        assert world.count(DeliveryStatus.DELIVERED) == 3


async def test_each_attempt_is_one_line_in_the_log_and_tells_no_secret(
    world: World, logs: list[MutableMapping[str, Any]]
) -> None:
    world.store.add(an_endpoint(headers={"x-token": "hunter2"}))
    world.owe(1)
    world.receiver.answer = lambda _: 500
    async with world.running():
        await world.clock.advance(1)
    (line,) = [line for line in logs if line["log_level"] == "info"]
    assert line == {
        "event": "delivery.attempted",
        "log_level": "info",
        "delivery": "dlv_sub_1_000001",
        "endpoint": "sub_1",
        "number": 1,
        "status": 500,
        "error": None,
        "verdict": "retry",
        "duration_ms": 0.0,
    }


async def test_an_ordered_backlog_flows_as_fast_as_its_receiver_answers(world: World) -> None:
    world.store.add(an_endpoint(ordering=Ordering.LIBRARY))
    world.owe(300, library_id="a")
    world.receiver.takes_seconds = 0.01
    async with world.running():
        await world.clock.advance(3.1)
    assert world.receiver.events == [f"evt_{number}" for number in range(1, 301)]
    assert world.receiver.most_in_flight == 1


LOOK = 2
"""Reads of one look: live work, and what replays made."""


async def test_a_lane_that_may_send_nothing_looks_once_a_second_however_often_it_is_woken(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=1))
    world.owe(50)
    world.receiver.answer = lambda _: (503, "3600")
    async with world.running():
        await world.clock.advance(1)
        before = world.store.reads
        for _ in range(100):
            world.dispatcher.wake(["sub_1"])
            await world.clock.advance(0.1)
        assert LOOK <= world.store.reads - before <= 11 * LOOK
        before = world.store.reads
        await world.clock.advance(10)
        assert world.store.reads - before <= LOOK


async def test_a_redelivery_has_a_fresh_schedule_and_its_attempts_count_on(world: World) -> None:
    world.store.add(an_endpoint())
    world.owe(1, attempt_count=10, schedule_start=10)
    world.receiver.answer = lambda _: 500
    async with world.running():
        await world.clock.advance(6)
    assert world.receiver.seconds() == [0, 5]
    assert list(world.store.rows["dlv_sub_1_000001"].attempts) == [11, 12]


async def test_a_settler_ends_when_it_is_closed_with_nothing_to_store() -> None:
    settler = Settler(MemoryDeliveryStore(), clock=FakeClock())
    task = asyncio.create_task(settler.run())
    await quiet()
    settler.close()
    await until(task.done)
    assert task.exception() is None
