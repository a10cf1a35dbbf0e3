"""What one process does for all that share a database: fanning out, replaying, keeping house.

         wait ──▶ on duty ──the session with the database breaks──▶ stop, and wait again

With SQLite there is one process, on duty from the start to the end. With PostgreSQL the others publish, serve streams,
answer requests and send webhooks meanwhile.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from gateway.supervision import running


class Duty:
    """Runs what was added for as long as this process is on duty."""

    def __init__(self, take: Callable[[], AbstractAsyncContextManager[asyncio.Event]]) -> None:
        """*take* is `Database.on_duty`."""
        self._take = take
        self._parts: dict[str, Callable[[], Awaitable[None]]] = {}
        self._draining = asyncio.Event()
        self.is_on = False

    def add(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run *run* while on duty."""
        self._parts[name] = run

    def drain(self) -> None:
        """Let another process go on."""
        self._draining.set()

    async def run(self) -> None:
        """Until it is drained or cancelled."""
        while not self._draining.is_set():
            async with self._take() as is_over:
                await self._serve(is_over)

    async def _serve(self, is_over: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            for name, run in self._parts.items():
                await stack.enter_async_context(running(name, run))
            stack.callback(self._leave)
            self.is_on = True
            ends = [asyncio.create_task(event.wait()) for event in (is_over, self._draining)]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for end in ends:
                    end.cancel()

    def _leave(self) -> None:
        self.is_on = False
