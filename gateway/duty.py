"""What one process does for all that share a database: fanning out, replaying, sending, keeping house.

         wait ──▶ on duty ──the session with the database breaks──▶ stop, and wait again
                  a new dispatcher, which finds what is owed in the database, as after a restart

With SQLite there is one process, on duty from the start to the end. With PostgreSQL the others publish, serve streams
and answer requests meanwhile; what they change for a lane is found by the sweep of the one on duty, a second later.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from gateway.supervision import running
from webhooks.deliveries import Attempt, Delivery
from webhooks.dispatcher import Dispatcher
from webhooks.endpoints import Endpoint


class Duty:
    """A dispatcher for as long as this process is on duty; to everybody else it looks like one."""

    def __init__(
        self,
        take: Callable[[], AbstractAsyncContextManager[asyncio.Event]],
        make: Callable[[], Dispatcher],
    ) -> None:
        """*take* is `Database.on_duty`."""
        self._take = take
        self._make = make
        self._beside: dict[str, Callable[[], Awaitable[None]]] = {}
        self._dispatcher = make()
        self._draining = False
        self.is_on = False

    @property
    def lanes(self) -> int:
        return self._dispatcher.lanes

    @property
    def in_flight(self) -> int:
        return self._dispatcher.in_flight

    def add(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run *run* too, while on duty."""
        self._beside[name] = run

    def wake(self, endpoint_ids: Iterable[str]) -> None:
        if self.is_on:
            self._dispatcher.wake(endpoint_ids)

    def offer(self, fresh: Mapping[str, Sequence[Delivery]]) -> None:
        if self.is_on:
            self._dispatcher.offer(fresh)

    def is_stuck(self, endpoint_id: str) -> bool:
        return self._dispatcher.is_stuck(endpoint_id)

    def changed(self, endpoint_id: str) -> None:
        if self.is_on:
            self._dispatcher.changed(endpoint_id)

    async def ping(self, endpoint: Endpoint, delivery: Delivery) -> Attempt:
        """On duty or not: it counts for nothing."""
        return await self._dispatcher.ping(endpoint, delivery)

    async def drain(self) -> None:
        self._draining = True
        await self._dispatcher.drain()

    async def run(self) -> None:
        """Until it is drained or cancelled."""
        while not self._draining:
            async with self._take() as is_over:
                await self._serve(is_over)

    async def _serve(self, is_over: asyncio.Event) -> None:
        self.is_on = True
        async with AsyncExitStack() as stack:
            for name, run in self._beside.items():
                await stack.enter_async_context(running(name, run))
            sending = asyncio.create_task(self._dispatcher.run(), name="sending")
            stack.push_async_callback(_ended, sending)
            over = asyncio.create_task(is_over.wait(), name="duty-over")
            stack.push_async_callback(_ended, over)
            stack.push_async_callback(self._leave)  # at the end it comes first: attempts in flight may end
            await asyncio.wait([sending, over], return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()

    async def _leave(self) -> None:
        """Make no more attempts: another process may begin now."""
        self.is_on = False
        await self._dispatcher.drain()
        if not self._draining:
            self._dispatcher = self._make()


async def _ended(task: asyncio.Task[object]) -> None:
    task.cancel()
    await asyncio.wait([task])
