"""Accepting events: concurrent publishers share commits, and each learns of its own batch only.

publish() ─▶ waiting ─▶ [ one commit of all that waited ] ─▶ receipts
                ▲ bounded: beyond it Overloaded, at once
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from gateway.errors import Overloaded, StorageUnavailable
from gateway.events import Draft
from gateway.ports.log import Appended, EventLog

GROUP_EVENTS = 1000
GROUP_BYTES = 4 * 2**20
"""One commit takes about this much at most, so that nobody waits long for the one before."""
WAITING_EVENTS = 20_000
WAITING_BYTES = 64 * 2**20
STOP_SECONDS = 0.5
"""For each commit, once no more is taken. It may wait for others, who do not end with this process."""


@dataclass(slots=True, eq=False)
class _Batch:
    drafts: Sequence[Draft]
    size: int
    done: asyncio.Future[Appended]


class Publisher:
    """Appends batches to *log*, in the order in which they came. Runs as `async with Publisher(log)`."""

    def __init__(self, log: EventLog, *, stop_seconds: float = STOP_SECONDS) -> None:
        self._log = log
        self._stop_seconds = stop_seconds
        self._waiting: deque[_Batch] = deque()
        self._group: list[_Batch] = []
        self._news = asyncio.Event()
        self._events = self._bytes = 0
        self._closing = False

    @property
    def queue_size(self) -> int:
        """Events that wait for their commit."""
        return self._events

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="publishing")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Take no more; what was taken, and is waited for, is still committed, unless a commit takes too long."""
        self._closing = True
        self._news.set()
        stuck: list[_Batch] | None = None
        while not self._task.done() and stuck is not self._group and self._is_waited_for():
            stuck = self._group
            await asyncio.wait([self._task], timeout=self._stop_seconds)
        if self._task.done():
            self._task.result()
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        for batch in (*self._group, *self._waiting):
            _fail(batch, Overloaded("The gateway is stopping"))

    def _is_waited_for(self) -> bool:
        return not all(batch.done.done() for batch in (*self._group, *self._waiting))

    async def publish(self, drafts: Sequence[Draft]) -> Appended:
        """Append *drafts*, all or none; durable on return.

        Raises:
            Overloaded: nothing was taken, as the queue is full; or the gateway is stopping, and it may be there.
            StorageUnavailable: the disk or the database refused.
        """
        if not drafts:
            return ()
        size = sum(len(draft.data) for draft in drafts)
        if self._closing:
            raise Overloaded("The gateway is stopping")
        if self._events + len(drafts) > WAITING_EVENTS or self._bytes + size > WAITING_BYTES:
            raise Overloaded("Too many events wait to be stored")
        batch = _Batch(drafts, size, asyncio.get_running_loop().create_future())
        self._waiting.append(batch)
        self._events += len(drafts)
        self._bytes += size
        self._news.set()
        return await batch.done

    async def _run(self) -> None:
        while not (self._closing and not self._waiting):
            await self._news.wait()
            self._news.clear()
            while group := self._next_group():
                self._group = group
                await self._append(group)
                self._events -= sum(len(batch.drafts) for batch in group)
                self._bytes -= sum(batch.size for batch in group)

    def _next_group(self) -> list[_Batch]:
        group: list[_Batch] = []
        events = size = 0
        while self._waiting:
            batch = self._waiting[0]
            if group and (events + len(batch.drafts) > GROUP_EVENTS or size + batch.size > GROUP_BYTES):
                break
            group.append(self._waiting.popleft())
            events, size = events + len(batch.drafts), size + batch.size
        return group

    async def _append(self, group: list[_Batch]) -> None:
        """Commit *group* together; if that fails, each alone, so that a bad neighbour harms only itself."""
        # A publisher that went away was answered nothing and need not be stored.
        live = [batch for batch in group if not batch.done.done()]
        if not live:
            return
        try:
            answers = await self._log.append([batch.drafts for batch in live])
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the publishers, and must not end this task
            if len(live) == 1:
                _fail(live[0], error)
                return
            for batch in live:
                await self._append([batch])
            return
        for batch, answer in zip(live, answers, strict=True):
            if not batch.done.done():
                batch.done.set_result(answer)


def _fail(batch: _Batch, error: Exception) -> None:
    if not batch.done.done():
        batch.done.set_exception(error if isinstance(error, Overloaded) else StorageUnavailable(str(error)))
