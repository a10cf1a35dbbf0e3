"""One machine's dispatcher over SQL in virtual time, killed and started again on the same database.

life ─▶ dispatcher ─▶ wire ─▶ store ─▶ the file            kill: the wire is cut, and nothing reaches the file any more;
            └─▶ receiver                                   what was in memory is gone with the dispatcher
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from gateway.events import LoggedEvent
from gateway.storage.database import Database
from gateway.storage.engines import database_of
from gateway.subscriptions import Subscription
from tests.builders import HandClock
from tests.fakes.clock import FakeClock, quiet
from tests.fakes.deliveries import ScriptedSender
from tests.storage.arrange import Stores
from webhooks.deliveries import Attempt, Delivery, Settlement
from webhooks.dispatcher import Dispatcher
from webhooks.endpoints import Endpoint, Health
from webhooks.ports import DeliveryStore, Due
from webhooks.schedule import Rand

T = TypeVar("T")
NO_JITTER = 0.5


class Killed(Exception):
    """The process is no more: nothing of what it still asks for happens."""


class Wire:
    """Between a dispatcher and its store: knows what is under way, and can be cut."""

    def __init__(self, store: DeliveryStore) -> None:
        self._store = store
        self._under_way = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.is_cut = False
        self.cut_at_settlement: int | None = None
        """Cut it when so many batches have been stored and the next is to be."""

    async def _pass(self, call: Callable[[], Awaitable[T]]) -> T:
        if self.is_cut:
            raise Killed
        self._under_way += 1
        self.idle.clear()
        try:
            return await call()
        finally:
            self._under_way -= 1
            if not self._under_way:
                self.idle.set()

    async def endpoint(self, endpoint_id: str) -> tuple[Endpoint, Health] | None:
        return await self._pass(lambda: self._store.endpoint(endpoint_id))

    async def due(self, endpoint_id: str, *, now: datetime, limit: int, replayed: bool = False) -> Due:
        return await self._pass(lambda: self._store.due(endpoint_id, now=now, limit=limit, replayed=replayed))

    async def queue(
        self, endpoint_id: str, *, limit: int, per_library: int = 1, replayed: bool = False
    ) -> tuple[Delivery, ...]:
        return await self._pass(
            lambda: self._store.queue(endpoint_id, limit=limit, per_library=per_library, replayed=replayed)
        )

    async def lanes(self) -> Mapping[str, datetime]:
        return await self._pass(self._store.lanes)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        if self.cut_at_settlement is not None:
            self.is_cut = self.is_cut or self.cut_at_settlement == 0
            self.cut_at_settlement -= 1
        await self._pass(lambda: self._store.settle(settlements))


class MachineClock(FakeClock):
    """Time stands still while the database works: that takes place in threads."""

    wire: Wire | None = None

    async def quiet(self) -> None:
        await quiet()
        while self.wire is not None and not self.wire.idle.is_set():
            await self.wire.idle.wait()
            await quiet()


class _Wall(HandClock):
    """The same time, as the stores ask for it."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def __call__(self) -> datetime:
        return self._clock.now()


class Life:
    def __init__(self, machine: "Machine", database: Database, wall: HandClock) -> None:
        self.stores = Stores.over(database, wall)
        self.wire = Wire(self.stores.deliveries)
        self.dispatcher = Dispatcher(self.wire, machine.receiver, clock=machine.clock, rand=machine.rand)
        self._clock = machine.clock
        self._clock.wire = self.wire
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self.dispatcher.run())
        await self._clock.quiet()

    async def owe(self, subscription: Subscription, events: Sequence[LoggedEvent]) -> None:
        await self.stores.owe(events, subscription)
        self.dispatcher.wake([subscription.id])
        await self._clock.quiet()

    async def kill(self) -> None:
        """`kill -9`."""
        self.wire.is_cut = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def attempts(self, delivery_id: str) -> Sequence[Attempt]:
        return await self.stores.desk.attempts(delivery_id)

    async def health(self, subscription: Subscription) -> Health:
        found = await self.stores.deliveries.endpoint(subscription.id)
        assert found is not None
        return found[1]


class Machine:
    """What outlives a process: the database, the receivers, and time."""

    def __init__(self, database: Path, *, rand: Rand = lambda: NO_JITTER) -> None:
        self.clock = MachineClock()
        self.receiver = ScriptedSender(self.clock)
        self.rand = rand
        self._database = database

    @asynccontextmanager
    async def life(self, *, starts: bool = True) -> AsyncIterator[Life]:
        """From the start to `kill -9`, which is how each ends."""
        wall = _Wall(self.clock)
        async with database_of(f"sqlite:///{self._database}", clock=wall) as database:
            life = Life(self, database, wall)
            if starts:
                await life.start()
            try:
                yield life
            finally:
                await life.kill()
