"""The rate, the budget, the clock, and what a line holds."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.clock import START
from tests.fakes.deliveries import MemoryDeliveryStore, a_delivery, an_endpoint
from webhooks.budget import Budget
from webhooks.clock import SystemClock
from webhooks.deliveries import Delivery, DeliveryStatus
from webhooks.line import FreeLine, LibraryLine, Line
from webhooks.pace import Pace
from webhooks.ports import Due

SECOND = timedelta(seconds=1)


@given(st.floats(0.01, 5_000), st.lists(st.floats(0, 0.015), min_size=2, max_size=50))
def test_a_rate_is_exact_however_late_timers_fire_and_never_more_than_a_moment_ahead(
    rate: float, lateness: list[float]
) -> None:
    pace, now, starts = Pace(rate), START, []
    for late in lateness:
        now = pace.next_at(now) + timedelta(seconds=late)
        pace.spend(now)
        starts.append((now - START).total_seconds())
    for earlier, first in enumerate(starts):
        for later in range(earlier + 1, len(starts)):
            assert starts[later] - first >= (later - earlier) / rate - 0.0201
    ideal = (len(starts) - 1) / rate
    assert starts[-1] - starts[0] <= ideal + 0.016 * (1 if 1 / rate > 0.02 else len(starts))


def test_after_a_rest_there_is_no_burst() -> None:
    pace = Pace(10)
    pace.spend(START)
    now = START + 60 * SECOND
    starts = []
    for _ in range(5):
        now = pace.next_at(now)
        pace.spend(now)
        starts.append(now)
    assert [later - earlier for earlier, later in pairwise(starts)] == [SECOND / 10] * 4


@pytest.mark.parametrize("rate", [0.01, 0.5, 3, 60, 1_000])
def test_after_a_rest_the_second_is_a_whole_turn_later_at_any_rate(rate: float) -> None:
    pace = Pace(rate)
    pace.spend(START)
    now = START + 1_000 * SECOND
    pace.spend(now)
    assert pace.next_at(now) == now + SECOND / rate


def test_another_rate_counts_from_the_last_attempt_and_buys_none() -> None:
    pace = Pace(0.01)
    pace.spend(START)
    for rate in (0.02, None, 0.01, 0.02):
        pace.change(rate)
    assert pace.next_at(START + SECOND) == START + 50 * SECOND
    pace.change(None)
    assert pace.next_at(START + SECOND) == START + SECOND
    pace.spend(START + SECOND)
    pace.change(1)
    assert pace.next_at(START + SECOND) == START + 2 * SECOND


def test_without_a_rate_everything_may_go_now() -> None:
    pace = Pace(None)
    pace.spend(START)
    assert pace.next_at(START) == START


class ALane:
    def __init__(self, budget: Budget) -> None:
        self.in_flight = 0
        self.nudges = 0
        self._budget = budget

    def nudge(self) -> None:
        self.nudges += 1

    def start(self) -> bool:
        started = self._budget.acquire(self)
        self.in_flight += started
        return started

    def end(self) -> None:
        self.in_flight -= 1
        self._budget.release(self)


def test_every_lane_has_one_place_whatever_the_others_take() -> None:
    budget = Budget(2)
    greedy = ALane(budget)
    assert [greedy.start() for _ in range(5)] == [True, True, True, False, False]
    assert all(ALane(budget).start() for _ in range(100))


def test_a_place_that_falls_free_goes_to_the_lane_that_waits_longest() -> None:
    budget = Budget(1)
    greedy, first, second = ALane(budget), ALane(budget), ALane(budget)
    assert [greedy.start(), greedy.start(), greedy.start()] == [True, True, False]
    for lane in (first, second):
        assert [lane.start(), lane.start()] == [True, False]
    greedy.end()
    assert (greedy.nudges, first.nudges, second.nudges) == (1, 0, 0)
    budget.settle(greedy)
    assert (first.nudges, second.nudges) == (1, 0)
    assert not second.start()
    assert first.start()
    budget.settle(first)
    first.end()
    assert second.nudges == 1
    assert second.start()


def test_a_lane_that_leaves_gives_back_what_it_was_granted() -> None:
    budget = Budget(1)
    greedy, gone, next_one = ALane(budget), ALane(budget), ALane(budget)
    greedy.start(), greedy.start(), gone.start(), gone.start(), next_one.start(), next_one.start()
    greedy.end()
    assert gone.nudges == 1
    budget.leave(gone)
    assert next_one.nudges == 1


async def test_the_clock_of_the_machine_waits_for_an_event_or_a_moment() -> None:
    clock, event = SystemClock(), asyncio.Event()
    before = clock.now()
    assert before.tzinfo is UTC
    await clock.wait(event, before + timedelta(milliseconds=5))
    assert clock.now() >= before + timedelta(milliseconds=4)
    await clock.wait(event, datetime(2020, 1, 1, tzinfo=UTC))
    event.set()
    await clock.wait(event, None)


class SlowStore(MemoryDeliveryStore):
    """Answers as it was when it was asked, but only when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def due(self, endpoint_id: str, *, now: datetime, limit: int, replayed: bool = False) -> Due:
        found = await super().due(endpoint_id, now=now, limit=limit, replayed=replayed)
        self.asked.set()
        await self.answer.wait()
        return found

    async def queue(
        self, endpoint_id: str, *, limit: int, per_library: int = 1, replayed: bool = False
    ) -> tuple[Delivery, ...]:
        found = await super().queue(endpoint_id, limit=limit, per_library=per_library, replayed=replayed)
        self.asked.set()
        await self.answer.wait()
        return found


def take_all(line: Line) -> list[Delivery]:
    taken = []
    while line.has_next(only_forced=False):
        taken.append(line.take(only_forced=False))
    return taken


@pytest.mark.parametrize("kind", [FreeLine, LibraryLine])
async def test_what_was_settled_while_the_store_was_read_is_not_sent_again(kind: type[FreeLine | LibraryLine]) -> None:
    store = SlowStore()
    store.add(an_endpoint(), a_delivery(1), a_delivery(2))
    line = kind(store, "sub_1")
    store.answer.set()
    await line.refill(START, room=1)
    first = line.take(only_forced=False)
    store.answer.clear()
    store.asked.clear()
    reading = asyncio.create_task(line.refill(START, room=10))
    await store.asked.wait()
    line.received(first, START)
    store.rows[first.id].status = DeliveryStatus.DELIVERED
    line.release(first, START, due_again=None)
    store.answer.set()
    await reading
    assert [one.event_id for one in take_all(line)] == ["evt_2"]


async def test_what_failed_while_its_library_was_read_is_not_overtaken() -> None:
    store = SlowStore()
    store.add(an_endpoint(), a_delivery(1), a_delivery(2))
    line = LibraryLine(store, "sub_1")
    store.answer.set()
    await line.refill(START, room=1)
    first = line.take(only_forced=False)
    store.answer.clear()
    store.asked.clear()
    reading = asyncio.create_task(line.refill(START, room=10))
    await store.asked.wait()
    line.release(first, START, due_again=START + SECOND)
    store.answer.set()
    await reading
    assert take_all(line) == []
    assert line.more


async def test_of_an_ordered_line_one_of_each_library_goes_at_once() -> None:
    store = MemoryDeliveryStore()
    store.add(an_endpoint(), *[a_delivery(number, library_id="ab"[number % 2]) for number in range(1, 7)])
    line = LibraryLine(store, "sub_1")
    await line.refill(START, room=10)
    assert [one.cursor for one in take_all(line)] == [1, 2]


async def test_after_one_that_was_received_the_next_goes_before_the_store_knows() -> None:
    store = MemoryDeliveryStore()
    store.add(an_endpoint(), a_delivery(1), a_delivery(2))
    line = LibraryLine(store, "sub_1")
    await line.refill(START, room=10)
    (first,) = take_all(line)
    line.received(first, START)
    assert [one.cursor for one in take_all(line)] == [2]
    assert line.out == 2


@pytest.mark.parametrize("kind", [FreeLine, LibraryLine])
async def test_what_was_cancelled_while_it_waited_is_gone_with_the_next_read(
    kind: type[FreeLine | LibraryLine],
) -> None:
    store = MemoryDeliveryStore()
    store.add(an_endpoint(), a_delivery(1), a_delivery(2, library_id="b"))
    line = kind(store, "sub_1")
    await line.refill(START, room=10)
    store.rows[a_delivery(1).id].status = DeliveryStatus.CANCELLED
    await line.refill(START, room=10)
    assert [one.cursor for one in take_all(line)] == [2]


async def test_after_one_that_died_the_next_waits_until_the_store_knows() -> None:
    store = MemoryDeliveryStore()
    store.add(an_endpoint(), a_delivery(1), a_delivery(2))
    line = LibraryLine(store, "sub_1")
    await line.refill(START, room=10)
    (first,) = take_all(line)
    assert take_all(line) == []
    line.release(first, START, due_again=None)
    assert [one.cursor for one in take_all(line)] == [2]


@pytest.mark.parametrize("kind", [FreeLine, LibraryLine])
async def test_forced_ones_alone_can_be_taken(kind: type[FreeLine | LibraryLine]) -> None:
    store = MemoryDeliveryStore()
    later = START + 60 * SECOND
    store.add(
        an_endpoint(),
        a_delivery(1, library_id="a"),
        a_delivery(2, library_id="b", forced=True),
        a_delivery(3, due_at=later),
    )
    line = kind(store, "sub_1")
    await line.refill(START, room=10)
    assert (line.next_due, line.waiting, line.more) == (later, 2, False)
    assert line.has_next(only_forced=True)
    assert line.take(only_forced=True).cursor == 2
    assert not line.has_next(only_forced=True)
    assert line.has_next(only_forced=False)
    line.forget()
    assert not line.has_next(only_forced=False)
    assert line.more
