"""One process is on duty for all that share a database; the others wait, and take over."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.duty import Duty
from tests.fakes.clock import until


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
        self.turns = Turns()
        self.at_work = 0

    def process(self) -> Duty:
        duty = Duty(self.turns.take)
        duty.add("part", self._part)
        return duty

    async def _part(self) -> None:
        self.at_work += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.at_work -= 1


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


async def test_only_who_is_on_duty_works(world: World) -> None:
    one, other = world.process(), world.process()
    async with at_work(one.run, other.run):
        await until(lambda: one.is_on and world.at_work == 1)
        assert not other.is_on
    assert world.at_work == 0


async def test_another_takes_over(world: World) -> None:
    one, other = world.process(), world.process()
    async with at_work(one.run, other.run):
        await until(lambda: one.is_on)
        world.turns.is_over.set()
        await until(lambda: other.is_on and not one.is_on)
        await until(lambda: world.at_work == 1)


async def test_who_was_on_duty_before_may_be_again(world: World) -> None:
    one = world.process()
    async with at_work(one.run):
        for _ in range(3):
            await until(lambda: one.is_on and world.at_work == 1)
            world.turns.is_over.set()
            await until(lambda: not one.is_on)
    assert world.at_work == 0


async def test_who_is_drained_lets_another_take_over_and_ends(world: World) -> None:
    one, other = world.process(), world.process()
    run = asyncio.create_task(one.run())
    async with at_work(other.run):
        await until(lambda: one.is_on)
        one.drain()
        await run
        assert not one.is_on
        await until(lambda: other.is_on)


async def test_who_is_drained_before_its_turn_never_is_on_duty(world: World) -> None:
    one = world.process()
    one.drain()
    await one.run()
    assert world.at_work == 0
