"""`kill -9` in every state a delivery or a subscription can be in: it goes on where it was.

before a send · during · answered, not settled · in retry wait · in a Retry-After pause · with an open circuit ·
paused · disabled · during a drain · in the middle of an ordered backlog
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, MutableMapping, Sequence
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
import structlog.testing

from gateway.events import LoggedEvent
from gateway.subscriptions import paused, resumed
from tests.builders import a_draft
from tests.fakes.clock import START
from tests.fakes.deliveries import Answer
from tests.sending.lives import Life, Machine
from webhooks.deliveries import Delivery, DeliveryStatus, Failure
from webhooks.endpoints import Ordering, Status

SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What was logged; nothing is printed. The killed have much to say of their store."""
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "gateway.db")


async def some_events(life: Life, count: int, *, library_id: str = "books") -> Sequence[LoggedEvent]:
    return await life.stores.publish(*(a_draft(library_id=library_id) for _ in range(count)))


async def statuses(life: Life, deliveries: Sequence[Delivery]) -> Counter[DeliveryStatus]:
    return Counter([await life.stores.status(delivery) for delivery in deliveries])


async def test_what_was_owed_before_a_send_is_sent_once(machine: Machine) -> None:
    async with machine.life(starts=False) as life:
        subscription = await life.stores.subscribe()
        owed = await life.stores.owed(subscription, events=3)
    assert machine.receiver.sent == []
    async with machine.life() as life:
        await machine.clock.advance(1)
        assert await statuses(life, owed) == {DeliveryStatus.DELIVERED: 3}
    assert len(machine.receiver.sent) == 3


async def test_an_attempt_in_flight_is_made_again_and_did_not_count(machine: Machine) -> None:
    machine.receiver.takes_seconds = 10
    async with machine.life() as life:
        subscription = await life.stores.subscribe()
        await life.owe(subscription, await some_events(life, 1))
        await machine.clock.advance(5)
        assert machine.receiver.in_flight == 1
    assert machine.receiver.broken_off == 1
    async with machine.life() as life:
        [delivery] = await life.stores.due(subscription)
        assert (delivery.attempt_count, delivery.first_attempt_at, delivery.due_at) == (0, None, START)
        await machine.clock.advance(11)
        [attempt] = await life.attempts(delivery.id)
        assert (attempt.number, attempt.started_at) == (1, START + 5 * SECOND)
    assert machine.receiver.seconds() == [0, 5]


async def test_only_what_was_answered_and_not_yet_settled_is_sent_twice(machine: Machine) -> None:
    machine.receiver.takes_seconds = 1
    async with machine.life() as life:
        subscription = await life.stores.subscribe(max_in_flight=4)
        life.wire.cut_at_settlement = 3
        await life.owe(subscription, await some_events(life, 20))
        await machine.clock.advance(5)
        assert life.wire.is_cut
    sent = set(machine.receiver.events)
    async with machine.life(starts=False) as life:
        owed = {delivery.event_id for delivery in await life.stores.due(subscription)}
        assert sent & owed, "some had been answered, and were about to be stored"
        assert sent - owed, "and some were stored"
    async with machine.life() as life:
        await machine.clock.advance(30)
        assert (await life.stores.deliveries.lanes()) == {}
    times = Counter(machine.receiver.events)
    assert {event for event, count in times.items() if count == 2} == sent & owed
    assert {event for event, count in times.items() if count == 1} == times.keys() - (sent & owed)
    assert len(times) == 20


async def test_a_delivery_in_retry_wait_keeps_its_due_time_and_its_number_however_often_it_is_killed(
    machine: Machine,
) -> None:
    machine.receiver.answer = lambda _: 500
    async with machine.life() as life:
        subscription = await life.stores.subscribe(retry_schedule=(5.0, 300.0))
        [event] = await some_events(life, 1)
        await life.owe(subscription, [event])
        delivery = machine.receiver.sent[0][1]
    for seconds in (1, 1, 2.9, 0.2, 100, 199, 2):
        async with machine.life() as life:
            await machine.clock.advance(seconds)
    assert machine.receiver.seconds() == [0, 5, 305]
    async with machine.life() as life:
        assert [attempt.number for attempt in await life.attempts(delivery.id)] == [1, 2, 3]
        assert await life.stores.status(delivery) is DeliveryStatus.DEAD


async def test_a_pause_that_a_receiver_asked_for_outlives_the_process(machine: Machine) -> None:
    machine.receiver.answer = lambda _: (429, "3600")
    async with machine.life() as life:
        subscription = await life.stores.subscribe(max_in_flight=1)
        await life.owe(subscription, await some_events(life, 5))
    machine.receiver.answer = lambda _: 204
    async with machine.life() as life:
        assert (await life.health(subscription)).held_until == START + 3_600 * SECOND
        await machine.clock.advance(20)
    async with machine.life() as life:
        await machine.clock.leap(3_570)
        await machine.clock.advance(9)
        assert len(machine.receiver.sent) == 1
        await machine.clock.advance(20)
        assert (await life.stores.deliveries.lanes()) == {}
    assert machine.receiver.seconds()[1] == 3_600
    assert len(machine.receiver.sent) == 6
    again = machine.receiver.sent[1:]
    assert sorted(delivery.attempt_count for _, delivery in again) == [0, 0, 0, 0, 1]


async def test_an_open_circuit_stays_open_and_its_pauses_go_on_doubling(machine: Machine) -> None:
    machine.receiver.answer = lambda _: Failure.UNREACHABLE
    async with machine.life() as life:
        subscription = await life.stores.subscribe(max_in_flight=1, retry_schedule=(0.0,) * 50)
        await life.owe(subscription, await some_events(life, 20))
        await machine.clock.advance(1)
        assert len(machine.receiver.sent) == 10
    for _ in range(4):
        async with machine.life() as life:
            await machine.clock.advance(7)
    async with machine.life() as life:
        health = await life.health(subscription)
        assert (health.circuit_trips, health.unreachable) == (2, 11)
        assert health.circuit_open_until == START + 30 * SECOND
        machine.receiver.answer = lambda _: 204
        machine.receiver.takes_seconds = 1
        await machine.clock.advance(30)
        assert (await life.stores.deliveries.lanes()) == {}
    assert machine.receiver.seconds()[10:12] == [10, 30], "one probe at a time, at the moments that were set"
    assert machine.receiver.seconds()[12] == 31


@pytest.mark.parametrize("ordering", list(Ordering))
async def test_what_was_paused_stays_paused_and_drains_in_order_when_it_is_resumed(
    machine: Machine, ordering: Ordering
) -> None:
    async with machine.life() as life:
        subscription = await life.stores.subscribe(max_in_flight=1, ordering=ordering)
        await life.stores.subscriptions.change(
            subscription.id, lambda one: paused(one, machine.clock.now()), "gateway.subscription.updated"
        )
        life.dispatcher.changed(subscription.id)
        await life.owe(subscription, await some_events(life, 10))
        await machine.clock.advance(2)
    async with machine.life() as life:
        await machine.clock.advance(5)
        assert machine.receiver.sent == []
        await life.stores.subscriptions.change(
            subscription.id, lambda one: resumed(one, machine.clock.now()), "gateway.subscription.resumed"
        )
        life.dispatcher.changed(subscription.id)
        await machine.clock.advance(2)
    cursors = [delivery.cursor for _, delivery in machine.receiver.sent]
    assert cursors == sorted(cursors)
    assert len(cursors) == 10


async def test_what_was_disabled_stays_disabled_and_keeps_what_it_owes(machine: Machine) -> None:
    machine.receiver.answer = lambda _: 410
    async with machine.life() as life:
        subscription = await life.stores.subscribe(max_in_flight=1)
        await life.owe(subscription, await some_events(life, 5))
        await machine.clock.advance(1)
    async with machine.life() as life:
        await machine.clock.advance(5)
        found = await life.stores.subscriptions.get(subscription.id)
        assert found is not None
        assert (found.status, found.disabled_reason) == (Status.DISABLED, "gone")
        assert len(await life.stores.due(subscription)) == 4
    assert len(machine.receiver.sent) == 1


async def test_a_drain_that_is_cut_short_counts_nothing_that_it_did_not_store(machine: Machine) -> None:
    machine.receiver.takes_seconds = 2
    async with machine.life() as life:
        subscription = await life.stores.subscribe(max_in_flight=2)
        await life.owe(subscription, await some_events(life, 6))
        await machine.clock.advance(3)
        draining = asyncio.create_task(life.dispatcher.drain(patience_seconds=60))
        await machine.clock.quiet()
        assert machine.receiver.in_flight == 2
        await life.kill()
        draining.cancel()
        await asyncio.wait([draining])
    assert len(machine.receiver.sent) == 4
    async with machine.life() as life:
        owed = await life.stores.due(subscription)
        assert {delivery.attempt_count for delivery in owed} == {0}
        assert len(owed) == 4
        await machine.clock.advance(10)
        assert (await life.stores.deliveries.lanes()) == {}
    assert Counter(Counter(machine.receiver.events).values()) == {1: 4, 2: 2}


@pytest.mark.parametrize("seed", range(2))
async def test_an_ordered_backlog_arrives_in_its_order_whatever_fails_and_however_often_it_is_killed(
    tmp_path: Path, seed: int
) -> None:
    rand = Random(20251027 + seed)
    machine = Machine(tmp_path / "gateway.db", rand=rand.random)
    answers: list[tuple[str, Answer]] = []

    def answer(delivery: Delivery) -> Answer:
        given: Answer = 204
        if delivery.library_id == "blocked" or rand.random() < 0.4:
            given = rand.choice((500, 500, Failure.UNREACHABLE, Failure.TIMEOUT))
        answers.append((delivery.event_id, given))
        return given

    machine.receiver.answer = answer
    machine.receiver.takes_seconds = 0.05
    libraries = ("a", "b", "c", "blocked")
    async with machine.life() as life:
        subscription = await life.stores.subscribe(
            ordering=Ordering.LIBRARY, max_in_flight=8, retry_schedule=(0.3, 0.3, 0.3)
        )
        stuck = await life.stores.subscribe(ordering=Ordering.LIBRARY, retry_schedule=(10_000.0,))
        drafts = [a_draft(library_id=libraries[number % 4]) for number in range(80)]
        events = await life.stores.publish(*drafts)
        await life.stores.owe(events, subscription, stuck)
    for _ in range(12):
        async with machine.life() as life:
            if rand.random() < 0.5:
                life.wire.cut_at_settlement = rand.randrange(4)
            await machine.clock.advance(rand.uniform(0.05, 1.5))
    async with machine.life() as life:
        await machine.clock.advance(25)
        assert await life.stores.due(subscription, now=START + 10_000 * SECOND) == ()
    check_order(machine, subscription.id, events)
    check_order(machine, stuck.id, events)
    check_flow(machine, stuck.id)


def first_receipts(machine: Machine, endpoint_id: str) -> dict[str, list[str]]:
    """By library: the events in the order in which they first came."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for _, delivery in machine.receiver.sent:
        if delivery.endpoint_id == endpoint_id and delivery.event_id not in found[delivery.library_id]:
            found[delivery.library_id].append(delivery.event_id)
    return found


def check_order(machine: Machine, endpoint_id: str, events: Sequence[LoggedEvent]) -> None:
    for library, came in first_receipts(machine, endpoint_id).items():
        logged = [event.id for event in events if event.library_id == library]
        assert came == logged[: len(came)], f"{library} came out of order"


def check_flow(machine: Machine, endpoint_id: str) -> None:
    """One library that is stuck at its first event holds up none of the others."""
    came = first_receipts(machine, endpoint_id)
    assert len(came["blocked"]) == 1
    assert all(len(came[library]) >= 1 for library in "abc")
