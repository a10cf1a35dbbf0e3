"""One process on duty sends for all that share a store; the others send nothing, and take over."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.duty import Duty
from tests.fakes.clock import FakeClock, until
from tests.fakes.deliveries import MemoryDeliveryStore, ScriptedSender, a_delivery, an_endpoint
from webhooks.dispatcher import Dispatcher


class Turns:
    """Gives the duty to whoever asks first, and takes it back when told to."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self.is_over = asyncio.Event()

    @asynccontextmanager
    async def take(self) -> AsyncIterator[asyncio.Event]:
        async with self._lock:
            self.is_over = asyncio.Event()
            yield self.is_over


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.turns = Turns()
        self.store = MemoryDeliveryStore()
        self.store.add(an_endpoint())
        self.beside = 0

    def process(self) -> tuple[Duty, ScriptedSender]:
        sender = ScriptedSender(self.clock)
        duty = Duty(self.turns.take, self._maker(sender))
        duty.add("beside", self._beside)
        return duty, sender

    def _maker(self, sender: ScriptedSender) -> Callable[[], Dispatcher]:
        return lambda: Dispatcher(self.store, sender, clock=self.clock)

    async def _beside(self) -> None:
        self.beside += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.beside -= 1


@asynccontextmanager
async def at_work(*runs: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(run()) for run in runs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@pytest.fixture
def world() -> World:
    return World()


async def test_only_who_is_on_duty_sends_and_works_beside(world: World) -> None:
    (one, sent), (other, sent_by_other) = world.process(), world.process()
    async with at_work(one.run, other.run):
        await until(lambda: one.is_on and world.beside == 1)
        delivery = a_delivery()
        world.store.add(delivery)
        other.wake(["sub_1"])
        other.changed("sub_1")
        other.offer({"sub_1": [delivery]})
        one.wake(["sub_1"])
        await until(lambda: bool(sent.events))
        assert not other.is_on
        assert world.beside == 1
    assert sent_by_other.events == []


async def test_another_takes_over_and_sends_what_is_owed(world: World) -> None:
    (one, sent), (other, sent_by_other) = world.process(), world.process()
    async with at_work(one.run, other.run):
        await until(lambda: one.is_on)
        world.turns.is_over.set()
        await until(lambda: other.is_on and not one.is_on)
        world.store.add(a_delivery())
        other.wake(["sub_1"])
        await until(lambda: bool(sent_by_other.events))
    assert sent.events == []


async def test_who_was_on_duty_before_may_be_again(world: World) -> None:
    one, sent = world.process()
    async with at_work(one.run):
        for number in (1, 2, 3):
            await until(lambda: one.is_on)
            world.store.add(a_delivery(number))
            one.wake(["sub_1"])
            await until(lambda count=number: len(sent.events) == count)  # type: ignore[misc]  # bound now
            world.turns.is_over.set()
            await until(lambda: not one.is_on)
    assert world.beside == 0


async def test_it_ends_when_it_is_drained(world: World) -> None:
    one, _ = world.process()
    run = asyncio.create_task(one.run())
    await until(lambda: one.is_on)
    await one.drain()
    await run
    assert not one.is_on
