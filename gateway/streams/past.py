"""Read the log's past for streams that resume: each page once, however many want it at the same time.

Reads begin at multiples of BLOCK, so that readers who left at different places share them all the same, and a page
that was read is kept for a while with its frames. Five thousand streams coming back are not five thousand scans.
"""

import asyncio
from collections import OrderedDict
from contextlib import suppress

from gateway.events import Cursor
from gateway.ports.log import EventLog
from gateway.streams.hub import Hub, Leaf

BLOCK_EVENTS = 512
READ_BYTES = 128 * 2**10
"""What is read at once is written at once: not much more than a socket takes."""
CACHE_BYTES = 8 * 2**20
READS_AT_ONCE = 4
"""Resuming streams must not take the whole database from publishers."""


class Past:
    def __init__(self, log: EventLog, hub: Hub, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._log = log
        self._hub = hub
        self._cache_bytes = cache_bytes
        self._cached: OrderedDict[Cursor, Leaf] = OrderedDict()
        self._cached_size = 0
        self._reading: dict[Cursor, asyncio.Task[Leaf]] = {}
        self._turns = asyncio.Semaphore(READS_AT_ONCE)

    async def read(self, cursor: Cursor) -> Leaf | None:
        """A leaf with the event that comes next after *cursor* (and perhaps some before it); None at the log's end.

        Raises whatever the log raises.
        """
        start = Cursor(cursor - cursor % BLOCK_EVENTS)
        while True:
            leaf, fresh = await self._leaf(start)
            if leaf.last > cursor:
                return leaf
            if leaf.events:
                start = leaf.last
            elif fresh:
                return None
            # Else it was read before this reader came, when the log ended there: that may be no longer so.

    async def close(self) -> None:
        """End the reads that are under way."""
        for task in tuple(self._reading.values()):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task

    async def _leaf(self, after: Cursor) -> tuple[Leaf, bool]:
        """The leaf, and whether it was read for this caller."""
        if (leaf := self._cached.get(after)) is not None:
            self._cached.move_to_end(after)
            return leaf, False
        task = self._reading.get(after)
        fresh = task is None
        if task is None:
            task = self._reading[after] = asyncio.create_task(self._read(after), name="past")
            task.add_done_callback(lambda _: self._reading.pop(after, None))
        # Shielded: one reader that goes away does not take the page from the others.
        return await asyncio.shield(task), fresh

    async def _read(self, after: Cursor) -> Leaf:
        async with self._turns:
            page = await self._log.read(after, limit=BLOCK_EVENTS - after % BLOCK_EVENTS, max_bytes=READ_BYTES)
        leaf = self._hub.leaf(page)
        if leaf.events:
            self._keep(after, leaf)
        return leaf

    def _keep(self, after: Cursor, leaf: Leaf) -> None:
        self._cached[after] = leaf
        self._cached_size += leaf.size
        while self._cached_size > self._cache_bytes and len(self._cached) > 1:
            _, dropped = self._cached.popitem(last=False)
            self._cached_size -= dropped.size
