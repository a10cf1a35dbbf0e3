"""A dispatcher with everything around it made up, in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.fakes.clock import FakeClock, quiet
from tests.fakes.deliveries import MemoryDeliveryStore, ScriptedSender, a_delivery
from webhooks.deliveries import Delivery, DeliveryStatus
from webhooks.dispatcher import Dispatcher
from webhooks.ownership import Holder
from webhooks.rules import Rules
from webhooks.schedule import Rand

NO_JITTER = 0.5


class World:
    """A dispatcher with a store, a receiver and a clock that a test moves."""

    def __init__(
        self,
        *,
        rules: Rules | None = None,
        most_at_once: int = 512,
        rand: Rand = lambda: NO_JITTER,
        clock: FakeClock | None = None,
        store: MemoryDeliveryStore | None = None,
        holder: Holder | None = None,
    ) -> None:
        self.clock = clock or FakeClock()
        self.store = store or MemoryDeliveryStore()
        self.receiver = ScriptedSender(self.clock)
        self.dispatcher = Dispatcher(
            self.store,
            self.receiver,
            clock=self.clock,
            rand=rand,
            rules=rules,
            most_at_once=most_at_once,
            holder=holder,
        )

    def owe(self, count: int, endpoint_id: str = "sub_1", *, first: int = 1, **changes: object) -> list[Delivery]:
        deliveries = [a_delivery(number, endpoint_id, **changes) for number in range(first, first + count)]
        self.store.add(*deliveries)
        return deliveries

    def count(self, status: DeliveryStatus) -> int:
        return sum(row.status is status for row in self.store.rows.values())

    @asynccontextmanager
    async def running(self) -> AsyncIterator["World"]:
        task = asyncio.create_task(self.dispatcher.run())
        await quiet()
        try:
            yield self
        finally:
            await self.dispatcher.drain(patience_seconds=0)
            await task
