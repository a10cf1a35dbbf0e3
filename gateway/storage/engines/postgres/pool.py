"""Connections to PostgreSQL, a few that are used in turn."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg

from gateway.storage.engines.postgres.server import CONNECT_SECONDS, CONNECTIONS, FAULTS, terminate

END_SECONDS = 0.5
"""For taking leave, when all are closed: the server knows by itself what was not committed."""


class Pool:
    """At most *size*, made as they are needed; the last used goes first. Those that the server has closed meanwhile are
    not handed out."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[asyncpg.Connection]],
        *,
        size: int = CONNECTIONS,
        patience_seconds: float = CONNECT_SECONDS,
    ) -> None:
        self._connect = connect
        self._patience_seconds = patience_seconds
        self._free: asyncio.LifoQueue[asyncpg.Connection | None] = asyncio.LifoQueue()
        self._ending: set[asyncio.Task[None]] = set()
        for _ in range(size):
            self._free.put_nowait(None)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[asyncpg.Connection]:
        """One that is in no transaction. If it is left in one, that is rolled back, and nobody waits for it.

        Raises:
            TimeoutError: all are in use.
            asyncpg.PostgresError, asyncpg.InterfaceError, OSError: see `server.connect`.
        """
        async with asyncio.timeout(self._patience_seconds):
            raw = await self._free.get()
        try:
            if raw is None or raw.is_closed():
                raw = None
                raw = await self._connect()
            yield raw
        except asyncio.CancelledError:
            # Perhaps in the middle of a statement, of which an answer is yet to come.
            if raw is not None:
                terminate(raw)
            raise
        finally:
            if raw is not None and not raw.is_closed() and raw.is_in_transaction():
                ending = asyncio.create_task(self._end(raw), name="rollback")
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
            else:
                self._free.put_nowait(raw)

    async def close(self) -> None:
        if self._ending:
            _, late = await asyncio.wait(self._ending, timeout=END_SECONDS)
            for task in late:
                task.cancel()
        free = [self._free.get_nowait() for _ in range(self._free.qsize())]
        await asyncio.gather(*(_close(raw) for raw in free if raw is not None and not raw.is_closed()))

    async def _end(self, raw: asyncpg.Connection) -> None:
        try:
            async with asyncio.timeout(self._patience_seconds):
                await raw.execute("ROLLBACK")
        except (*FAULTS, asyncio.CancelledError):
            terminate(raw)
        finally:
            self._free.put_nowait(raw)


async def _close(raw: asyncpg.Connection) -> None:
    try:
        await raw.close(timeout=END_SECONDS)
    except FAULTS:  # whatever it was, the server takes back what was not committed
        terminate(raw)
