"""One connected reader: from its place in the log to the head, and then along with it.

    PAST ──▶ BEHIND ◀──▶ LIVE          PAST    its place is older than the ring: a task reads the log
      ▲         │          │           BEHIND  within the ring; goes on when its socket is ready
      └─────────┘          │           LIVE    the hub offers it each page
         any ──────────▶ ENDED

Not LIVE, it keeps its own cursor; LIVE, the hub's is its own. Nothing is kept for a reader but that cursor: what it
has not taken yet is in the ring and in the log, so a slow one costs no memory.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

import structlog

from gateway.events import Cursor
from gateway.streams.counts import Counts
from gateway.streams.hub import Channel, Hub, Leaf, Sheet
from gateway.streams.past import Past
from gateway.streams.sinks import NOWHERE, End, Sink, StreamEncoding
from gateway.streams.starting import Gap

LEAVES_AT_ONCE = 8
"""Of the ring, before the loop gets a turn: a filter that lets little through would go through all of it at once."""
OPENING_SECONDS = 30.0
"""A place that was taken and never used is given back after this."""

_log = structlog.get_logger(__name__)


class State(Enum):
    OPENING = "opening"
    PAST = "past"
    BEHIND = "behind"
    LIVE = "live"
    ENDED = "ended"


_SILENT = (State.OPENING, State.ENDED)


@dataclass(slots=True, eq=False)
class Surroundings:
    """What all streams of a process share."""

    hub: Hub
    past: Past
    write_cursor: Callable[[Cursor], str]
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    left: Callable[["Stream"], None]
    monotonic: Callable[[], float]
    drain_retry_ms: Callable[[], int]
    counts: Counts = field(default_factory=Counts)
    behind: set["Stream"] = field(default_factory=set)
    ahead: set["Stream"] = field(default_factory=set)
    """Those whose place the hub has not reached: they have read it from the log, or had it from another process."""


class Stream:
    """A member of its channel, and what a sink talks to."""

    __slots__ = (
        "_around",
        "_resuming",
        "_sink",
        "_told",
        "_waiter",
        "_why",
        "address",
        "behind_since",
        "bytes",
        "channel",
        "cursor",
        "encoding",
        "id",
        "key_id",
        "mark",
        "opened_at",
        "progressed_at",
        "slot",
        "state",
    )

    def __init__(
        self,
        around: Surroundings,
        *,
        id_: str,
        key_id: str,
        address: str | None,
        opened_at: datetime,
        channel: Channel,
        encoding: StreamEncoding,
    ) -> None:
        self._around = around
        self._sink: Sink = NOWHERE
        self._waiter: asyncio.Future[None] | None = None
        self._resuming = False
        self._told = Cursor(0)
        self._why = End.NEVER_BEGAN
        self.id = id_
        self.key_id = key_id
        self.address = address
        self.opened_at = opened_at
        self.channel = channel
        self.encoding = encoding
        self.state = State.OPENING
        self.cursor = Cursor(0)
        self.bytes = 0
        self.mark = channel.offered_bytes
        """What its channel had offered when the reader was at the same place: beyond it, the reader lags."""
        self.progressed_at = self.behind_since = around.monotonic()
        """When it last took something, and when it was last live: on the monotonic clock, in seconds."""
        self.slot = 0
        """Its place on the wheel of heartbeats."""

    @property
    def place(self) -> Cursor:
        """Up to where everything for this reader has been written."""
        return self._around.hub.cursor if self.state is State.LIVE else self.cursor

    @property
    def lag_bytes(self) -> int:
        """About how much is waiting for this reader."""
        return 0 if self.state is State.LIVE else max(0, self.channel.offered_bytes - self.mark)

    # --- beginning -----------------------------------------------------------------------------------------------

    def begin(self, sink: Sink, *, after: Cursor | None, gap: Gap | None, retry_ms: int) -> None:
        """Start on *sink*: live if *after* is None, else with what the log holds after it, and what is missing told.

        A no-op when the stream was ended while its response was starting; *sink* is then ended as well.
        """
        if self.state is State.ENDED:
            sink.end(Sheet((self.encoding.farewell(retry_ms),)), self._why)
            return
        told = [self.encoding.opening(retry_ms)]
        self._sink = sink
        self._around.counts.opened += 1
        if after is None:
            self.cursor = self._told = self._around.hub.cursor
            told.append(self.encoding.checkpoint(self._around.write_cursor(self.cursor)))
        else:
            self._around.counts.replayed.observe(max(0, self._around.hub.cursor - after))
            self.cursor = self._told = after
            if gap is not None:
                told.append(self._gap_frame(gap))
        self._put(Sheet([frame for frame in told if frame]))
        self.state = State.BEHIND
        self._around.behind.add(self)
        self.catch_up()

    # --- what the hub and the sink say ---------------------------------------------------------------------------

    def offer(self, sheet: Sheet) -> None:
        self._told = sheet.last
        self.bytes += sheet.size
        self._sink.write(sheet)

    def became_busy(self) -> None:
        if self.state is State.LIVE:
            self.channel.live.discard(self)
            self.state = State.BEHIND
            self.cursor = self._around.hub.cursor
            self.mark = self.channel.offered_bytes
            self.progressed_at = self.behind_since = self._around.monotonic()
            self._around.behind.add(self)

    def became_ready(self) -> None:
        self.progressed_at = self._around.monotonic()
        if self.state is State.BEHIND:
            self._go_on()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def went_away(self) -> None:
        self._leave(End.DISCONNECTED)

    def server_stops(self) -> None:
        self.end(End.DRAINED, retry_ms=self._around.drain_retry_ms())

    def catch_up(self) -> None:
        """Go on, now that there may be more or now that it is this one's turn."""
        if self.state is State.BEHIND and not self._sink.is_busy:
            self._go_on()

    # --- speaking ------------------------------------------------------------------------------------------------

    def beat(self) -> None:
        """Say that all is well; where events have passed by this reader's filter, move its cursor."""
        if self.state is State.OPENING and self._around.monotonic() - self.progressed_at > OPENING_SECONDS:
            self._leave(End.NEVER_BEGAN)
        if self.state in _SILENT or self._sink.is_busy:
            return
        if (place := self.place) > self._told:
            self._told = place
            self._put(Sheet((self.encoding.checkpoint(self._around.write_cursor(place)),)))
        else:
            self._put(Sheet((self.encoding.heartbeat(),)))

    def end(self, why: End, *, retry_ms: int) -> None:
        """A clean end; the reader comes back after about *retry_ms*."""
        self._end(why, self.encoding.farewell(retry_ms))

    def expire(self, why: End) -> None:
        """Its token has run out or its key was revoked: say so, and end."""
        self._end(why, self.encoding.expired(why))

    def cut_off(self, why: End) -> None:
        """Close without waiting: the reader takes nothing any more."""
        sink = self._sink
        self._leave(why)
        sink.cut_off(why)

    # --- going on ------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """From the own cursor through the ring, and live at its end; by way of the log if the ring begins later."""
        hub = self._around.hub
        if self.cursor < hub.ring_after:
            self.state = State.PAST
            self._around.spawn(self._read_past())
            return
        for number, leaf in enumerate(hub.after(self.cursor)):
            if number == LEAVES_AT_ONCE:
                self._resume_soon()
                return
            self._pass(leaf)
            if self._sink.is_busy:
                return
        if self.cursor > hub.cursor:
            self._around.ahead.add(self)
            return
        self.state = State.LIVE
        self._around.behind.discard(self)
        self._around.ahead.discard(self)
        self.channel.live.add(self)

    def _resume_soon(self) -> None:
        if not self._resuming:
            self._resuming = True
            asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        self._resuming = False
        self.catch_up()

    async def _read_past(self) -> None:
        around = self._around
        try:
            while True:
                await self._turn()
                if not self._is_in_past():
                    return
                if self.cursor >= around.hub.ring_after:
                    self.state = State.BEHIND
                    self._go_on()
                    return
                leaf = await around.past.read(self.cursor)
                if self._is_in_past():
                    self._step_through_past(leaf)
        except Exception as error:  # noqa: BLE001 - the log's failure is no fault of the reader's: it may come again
            _log.warning("stream.past_unreadable", stream=self.id, cursor=self.cursor, error=repr(error))
            self.end(End.LOG_UNREADABLE, retry_ms=5_000)

    def _is_in_past(self) -> bool:
        """Asked again after each wait: the stream may have ended meanwhile."""
        return self.state is State.PAST

    async def _turn(self) -> None:
        """Wait until the reader takes more; in any case let others have theirs."""
        if self._sink.is_busy:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
        else:
            await asyncio.sleep(0)

    def _step_through_past(self, leaf: Leaf | None) -> None:
        first = self._next_event(leaf)
        if first != self.cursor + 1:
            self._tell_gap(first)
        if leaf is not None:
            self._pass(leaf)

    def _next_event(self, leaf: Leaf | None) -> Cursor:
        """The place of the next event there is. Without a leaf the log has dropped all up to the ring, or beyond."""
        if leaf is None:
            return Cursor(self._around.hub.ring_after + 1)
        return next(event.cursor for event in leaf.events if event.cursor > self.cursor)

    def _tell_gap(self, first: Cursor) -> None:
        """What lies between the own cursor and *first* has left the log while this reader was on its way."""
        write, hub = self._around.write_cursor, self._around.hub
        gap = Gap(requested=write(self.cursor), earliest=write(first) if first <= hub.cursor else None)
        self.cursor = self._told = Cursor(first - 1)
        self._put(Sheet((self._gap_frame(gap),)))

    def _gap_frame(self, gap: Gap) -> bytes:
        self._around.counts.gaps += 1
        cursor = self._around.write_cursor(self.cursor)
        return self.encoding.gap(cursor=cursor, requested=gap.requested, earliest=gap.earliest)

    def _pass(self, leaf: Leaf) -> None:
        """Write what of *leaf* is for this reader, and be beyond it."""
        if (sheet := self._around.hub.sheet(self.channel, leaf, self.cursor)) is not None:
            self.mark += sheet.size
            self._told = sheet.last
            self._around.counts.events_delivered += len(sheet.frames)
            self._put(sheet)
        self.cursor = leaf.last

    def _put(self, sheet: Sheet) -> None:
        if sheet.size == 0:
            return
        counts = self._around.counts
        counts.frames += len(sheet.frames)
        counts.bytes += sheet.size
        self.bytes += sheet.size
        self._sink.write(sheet)

    def _end(self, why: End, last_words: bytes) -> None:
        sink = self._sink
        self._leave(why)
        sink.end(Sheet((last_words,)), why)

    def _leave(self, why: End) -> None:
        if self.state is State.ENDED:
            return
        around = self._around
        self.state = State.ENDED
        self._why = why
        self._sink = NOWHERE
        self.channel.live.discard(self)
        around.behind.discard(self)
        around.ahead.discard(self)
        around.hub.leave(self.channel)
        around.counts.ended[why] = around.counts.ended.get(why, 0) + 1
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        around.left(self)
