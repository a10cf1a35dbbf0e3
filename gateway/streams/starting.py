"""Where a stream starts: live, or at the place that its reader names, and what is missing before that place."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import NewType

from gateway.events import Cursor, Position
from gateway.ports.log import EventLog
from gateway.streams.hub import Hub
from gateway.tail import Tail

REQUESTED_LENGTH = 64
"""Of what a reader asked for in vain, so much is said back to it."""

LastEventId = NewType("LastEventId", str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """All that was accepted at `moment` or later. `text` is how the reader put it."""

    moment: datetime
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """What was asked for is not there. `earliest`: the first event that is, None when there is none at all."""

    requested: str
    earliest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """`after`: the place to go on from; None: live, from the head as it will be when the stream begins."""

    after: Cursor | None = None
    gap: Gap | None = None


class Starting:
    """Finds places in the log. Most readers that come back are found in the ring, without asking the log."""

    def __init__(self, log: EventLog, hub: Hub, tail: Tail) -> None:
        self._log = log
        self._hub = hub
        self._tail = tail
        self._asking: asyncio.Task[Position] | None = None

    async def find(self, wish: LastEventId | Since | None) -> Start:
        """Raises whatever the log raises."""
        if wish is None:
            return Start()
        if isinstance(wish, Since):
            return await self._at_moment(wish)
        return await self._at_cursor(wish)

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    async def _at_cursor(self, text: str) -> Start:
        # First the cheap answers. Neither of them may be the last word on a cursor that they do not know: another
        # process may have given it out, or it may be younger than the question that others have asked already.
        if (cursor := self._in_ring().read(text)) is not None:
            return Start(after=cursor)
        if (cursor := (await self._shared_position()).read(text)) is not None:
            return Start(after=cursor)
        position = await self._log.position()
        if (cursor := position.read(text)) is not None:
            return Start(after=cursor)
        return _from_earliest(position, text)

    async def _at_moment(self, since: Since) -> Start:
        after = await self._log.before(since.moment)
        dropped_until = await self._log.dropped_until()
        if dropped_until is not None and since.moment <= dropped_until:
            return _from_earliest(await self._log.position(), since.text)
        return Start(after=after)

    def _in_ring(self) -> Position:
        earliest = Cursor(self._hub.ring_after + 1)
        return Position(epoch=self._tail.started_at.epoch, head=self._hub.cursor, earliest=earliest)

    async def _shared_position(self) -> Position:
        """One question for all who come at the same time."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="position")
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Position:
        return await self._log.position()


def _from_earliest(position: Position, requested: str) -> Start:
    holds_any = position.earliest <= position.head
    gap = Gap(
        requested=requested[:REQUESTED_LENGTH],
        earliest=position.write(position.earliest) if holds_any else None,
    )
    return Start(after=Cursor(position.earliest - 1), gap=gap)
