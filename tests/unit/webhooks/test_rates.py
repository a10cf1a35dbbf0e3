"""How much is sent when: rates in any window, pauses, circuits and fairness, in virtual time."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from math import floor
from random import Random
from statistics import fmean, pvariance

import pytest
from msgspec.structs import replace

from tests.fakes.clock import START, quiet
from tests.fakes.deliveries import Answer, MemoryDeliveryStore, an_endpoint
from tests.fakes.world import World
from webhooks.deliveries import Delivery, DeliveryStatus, Failure
from webhooks.endpoints import Health, Ordering, Status
from webhooks.schedule import JITTER, RETRY_SCHEDULE, wait_after

HOUR = 3_600.0
LATENESS = 0.02
CHI_SQUARE_99_9_OF_19 = 43.82
"""What 20 classes of a fair sample exceed once in a thousand times; the seeds are fixed, so that it is never."""


@pytest.fixture
def world() -> World:
    return World()


def most_within(moments: Sequence[float], seconds: float) -> int:
    """How many of *moments* lie in the fullest window of *seconds*, its end left out."""
    first = most = 0
    for number, moment in enumerate(moments):
        while moments[first] <= moment - seconds + 1e-4:
            first += 1
        most = max(most, number - first + 1)
    return most


def check_rate(moments: Sequence[float], rate: float, *, early: float = 0.0) -> None:
    """Smooth, and not above *rate* in any window; none is more than *early* seconds before its turn."""
    assert min(later - earlier for earlier, later in pairwise(moments)) >= 1 / rate - early - 1e-5
    for seconds in (0.1, 1.0, 7.5, 60.0):
        assert most_within(moments, seconds) <= floor(rate * (seconds + early) + 1e-3) + 1


@pytest.mark.parametrize("rate", [0.5, 3, 100])
@pytest.mark.parametrize("ordering", list(Ordering))
async def test_a_rate_is_exact_and_smooth_in_any_window(world: World, rate: float, ordering: Ordering) -> None:
    world.store.add(an_endpoint(max_per_second=rate, max_in_flight=50, ordering=ordering))
    seconds = 300 / rate
    for number in range(1, 321):
        world.owe(1, first=number, library_id=f"lib_{number % 7}")
    async with world.running():
        await world.clock.advance(seconds - 0.001)
        assert len(world.receiver.sent) == pytest.approx(300, abs=1)
    check_rate(world.receiver.seconds(), rate)


@pytest.mark.parametrize("rate", [0.5, 3, 100])
async def test_after_a_rest_of_any_length_there_is_no_burst(world: World, rate: float) -> None:
    world.store.add(an_endpoint(max_per_second=rate, max_in_flight=50))
    async with world.running():
        for number, rest in enumerate((0.0, 0.3 / rate, 1.5 / rate, 20.0, 200.0, 5_000.0)):
            await world.clock.advance(rest)
            world.dispatcher.offer({"sub_1": world.owe(10, first=1 + 10 * number)})
            await world.clock.advance(12 / rate)
    assert world.count(DeliveryStatus.DELIVERED) == 60
    # What comes within a tenth of a second of its turn counts as late, and at most one turn is made up for.
    check_rate(world.receiver.seconds(), rate, early=min(LATENESS, 1 / rate))
    if rate < 1 / LATENESS:
        check_rate([moment for moment in world.receiver.seconds() if moment > 100], rate)


async def test_a_slow_receiver_does_not_make_up_for_it_afterwards(world: World) -> None:
    world.store.add(an_endpoint(max_per_second=10, max_in_flight=2))
    world.owe(200)
    world.receiver.takes_seconds = 5.0
    async with world.running():
        await world.clock.advance(20)
        world.receiver.takes_seconds = 0.0
        await world.clock.advance(30)
    assert world.count(DeliveryStatus.DELIVERED) == 200
    check_rate(world.receiver.seconds(), 10)


async def test_a_rate_outlives_changes_of_its_endpoint_and_changing_it_buys_no_attempt(world: World) -> None:
    world.store.add(an_endpoint(max_per_second=0.5))
    world.owe(500)
    async with world.running():
        for number in range(50):
            await world.clock.advance(0.7)
            endpoint = world.store.endpoints["sub_1"]
            # Its URL, its rate (a little, and back), a pause: whatever is changed, the spread goes on.
            changed = (
                replace(endpoint, url=f"https://example.com/{number}"),
                replace(endpoint, max_per_second=0.5 - 1e-9 * number),
                replace(endpoint, status=Status.PAUSED if number % 2 else Status.ACTIVE),
            )[number % 3]
            world.store.add(changed)
            world.dispatcher.changed("sub_1")
            await quiet()
            world.store.add(replace(changed, status=Status.ACTIVE))
            world.dispatcher.changed("sub_1")
        sent = world.receiver.seconds()
        check_rate(sent, 0.5)
        assert len(sent) >= 17
        world.store.add(replace(world.store.endpoints["sub_1"], max_per_second=20))
        world.dispatcher.changed("sub_1")
        await world.clock.advance(9.99)
        faster = [moment for moment in world.receiver.seconds() if moment not in sent]
        assert len(faster) == pytest.approx(200, abs=1)
        check_rate(faster, 20)


async def test_forced_deliveries_go_first_and_keep_to_the_rate(world: World) -> None:
    world.store.add(an_endpoint(max_per_second=2))
    world.owe(20)
    wanted = [replace(one, forced=True) for one in world.owe(5, first=100)]
    async with world.running():
        await world.clock.advance(1.1)
        for one in wanted:
            world.store.rows[one.id].delivery = one
        world.dispatcher.changed("sub_1")
        await world.clock.advance(30)
    assert world.receiver.events[3:8] == [one.event_id for one in wanted]
    check_rate(world.receiver.seconds(), 2)


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_holds_everything_for_as_long_as_it_says_and_a_day_at_most(world: World, status: int) -> None:
    world.store.add(an_endpoint(max_in_flight=4))
    asked: Answer = (status, str(40 * 24 * 3_600))
    world.receiver.answer = lambda delivery: asked if delivery.event_id == "evt_1" else 204
    world.owe(1)
    async with world.running():
        await world.clock.advance(1)
        world.owe(50, first=2)
        world.dispatcher.wake(["sub_1"])
        await world.clock.leap(24 * HOUR - 5)
        await world.clock.advance(3)
        assert world.receiver.events == ["evt_1"]
        assert {row.delivery.attempt_count for row in world.store.rows.values()} == {0, 1}, "no attempt was used up"
        await world.clock.advance(10)
    assert world.receiver.seconds()[1] == 24 * HOUR
    assert world.count(DeliveryStatus.DELIVERED) == 50, "evt_1 has asked for the next day off"


async def test_the_circuit_pauses_10_s_and_twice_as_long_each_time_with_one_probe_and_no_attempt_in_between(
    world: World,
) -> None:
    world.store.add(an_endpoint(max_in_flight=1, retry_schedule=(0.0,) * 100))
    world.owe(30)
    world.receiver.answer = lambda _: Failure.UNREACHABLE
    async with world.running():
        await world.clock.advance(HOUR)
        at_once = [moment for moment in world.receiver.seconds() if moment == 0]
        assert len(at_once) == 10
        probes = world.receiver.seconds()[9:]
        pauses = [later - earlier for earlier, later in pairwise(probes)]
        assert pauses == [10, 20, 40, 80, 160, 320, 600, 600, 600, 600]
        assert sum(row.delivery.attempt_count for row in world.store.rows.values()) == len(world.receiver.sent)
        world.receiver.answer = lambda _: 204
        world.receiver.takes_seconds = 1.0
        world.store.add(an_endpoint(max_in_flight=8, retry_schedule=(0.0,) * 100))
        world.dispatcher.changed("sub_1")
        await world.clock.advance(700)
    assert world.count(DeliveryStatus.DELIVERED) == 30
    closed = [moment for moment in world.receiver.seconds() if moment > probes[-1]]
    assert [count for _, count in sorted(Counter(closed).items())][:3] == [1, 2, 4], "a ramp, not a herd"


async def test_after_a_restart_a_receiver_that_asked_for_a_pause_is_met_by_a_ramp_too(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=64))
    world.store.healths["sub_1"] = Health(held_until=START + timedelta(seconds=5))
    world.owe(200)
    world.receiver.takes_seconds = 1
    async with world.running():
        await world.clock.advance(5.5)
        assert world.receiver.in_flight == 1
        await world.clock.advance(1)
        assert world.receiver.in_flight == 2


async def test_lanes_with_unequal_backlogs_get_equal_shares_while_they_compete() -> None:
    world = World(most_at_once=6)
    backlogs = {"greedy": 2_000, "middling": 200, "modest": 60}
    for name, backlog in backlogs.items():
        world.store.add(an_endpoint(name, max_in_flight=100))
        world.owe(backlog, name)
    world.receiver.takes_seconds = 0.1
    async with world.running():
        await world.clock.advance(1.5)
        shares = Counter(delivery.endpoint_id for _, delivery in world.receiver.sent)
        assert max(shares.values()) - min(shares.values()) <= 0.2 * max(shares.values()), shares
        await world.clock.advance(100)
    assert world.count(DeliveryStatus.DELIVERED) == sum(backlogs.values())


# --- chance ----------------------------------------------------------------------------------------------------------


def chi_square(counts: Sequence[int]) -> float:
    """How far *counts* of equally likely classes are from equal."""
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 for count in counts) / expected


@pytest.mark.parametrize("failures", range(1, len(RETRY_SCHEDULE) + 1))
def test_each_wait_of_the_schedule_is_spread_evenly_over_a_fifth_either_way(failures: int) -> None:
    rand = Random(20251027 + failures).random
    middle = RETRY_SCHEDULE[failures - 1]
    waits = [wait.total_seconds() for _ in range(4_000) if (wait := wait_after(failures, RETRY_SCHEDULE, rand))]
    parts = [(wait / middle - (1 - JITTER)) / (2 * JITTER) for wait in waits]
    assert all(-1e-6 <= part <= 1 + 1e-6 for part in parts)
    counts = Counter(min(max(int(part * 20), 0), 19) for part in parts)
    assert chi_square([counts[number] for number in range(20)]) < CHI_SQUARE_99_9_OF_19
    assert fmean(parts) == pytest.approx(0.5, abs=0.02)
    assert pvariance(parts) == pytest.approx(1 / 12, abs=0.005)


async def test_what_failed_together_does_not_come_back_together() -> None:
    world = World(rand=Random(20251027).random)
    world.store.add(an_endpoint(max_in_flight=1_000, retry_schedule=(100.0,)))
    world.owe(1_000)
    world.receiver.answer = lambda _: 500
    async with world.running():
        await world.clock.advance(1)
        due = [due_in_seconds(world.store, delivery) for _, delivery in world.receiver.sent]
        await world.clock.advance(130)
    counts = Counter(int((seconds - 80) / 2) for seconds in due)
    assert chi_square([counts[number] for number in range(20)]) < CHI_SQUARE_99_9_OF_19
    second = world.receiver.seconds()[1_000:]
    assert len(second) == 1_000
    assert most_within(second, 1.0) < 60
    assert world.count(DeliveryStatus.DEAD) == 1_000


def due_in_seconds(store: MemoryDeliveryStore, delivery: Delivery) -> float:
    return (store.rows[delivery.id].delivery.due_at - START).total_seconds()
