"""All streams of this process: who may open one, how long it lasts, and how all of them end.

open ─▶ Opening ─(response has started)─▶ begin ─▶ Stream ─▶ token or key ends · too far behind · drain · gone
"""

import asyncio
import heapq
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from random import randint
from typing import Any, Self

import structlog
from typeid import TypeID

from gateway.errors import GatewayError, Overloaded, StorageUnavailable, Unauthenticated
from gateway.events import Cursor, Page
from gateway.filters import Filter
from gateway.ports.log import EventLog
from gateway.statistics import Share
from gateway.streams.counts import Counts
from gateway.streams.hub import Hub, Leaf, Selection, Sheet
from gateway.streams.past import Past
from gateway.streams.sinks import End, Sink, StreamEncoding
from gateway.streams.starting import LastEventId, Since, Start, Starting
from gateway.streams.stream import State, Stream, Surroundings
from gateway.tail import Tail
from gateway.times import Clock, now

KEY_REVOKED = "gateway.key.revoked"
RETRY_MS = 3_000
DRAIN_RETRY_MS = (1_000, 10_000)
TURNED_AWAY_RETRY_MS = (2_000, 15_000)
"""Spread at random, so that those who are sent away together do not come back together."""
TICK_SECONDS = 0.25
PATIENCE_SECONDS = 5.0
STALLED_BYTES = 4 * 2**20
"""A reader that has taken nothing for PATIENCE_SECONDS, and for whom so much waits, is closed. It comes back.

By bytes alone, a burst would close hundreds of healthy readers that are about to take it.
"""
OUTRUN_BYTES = 16 * 2**20
"""So is one that takes something, but was behind for PATIENCE_SECONDS, and for whom so much waits."""
REVOKED_KEPT = 1_000
DRAINED_AT_ONCE = 250

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A stream that somebody wants."""

    filter: Filter
    libraries: frozenset[str] | None
    """What the caller is confined to; None: all."""
    encoding: StreamEncoding
    key_id: str
    expires_at: datetime | None = None
    start: LastEventId | Since | None = None
    address: str | None = None


@dataclass(slots=True, eq=False)
class Opening:
    """A stream whose response has yet to start: either `begin` or `abandon` is called."""

    stream: Stream
    start: Start

    def begin(self, sink: Sink) -> Stream:
        self.stream.begin(sink, after=self.start.after, gap=self.start.gap, retry_ms=RETRY_MS)
        return self.stream

    def abandon(self) -> None:
        """The response never started, or was lost on the way. A no-op on a stream that has begun."""
        if self.stream.state is State.OPENING:
            self.stream.went_away()


class Streams:
    """Runs as `async with Streams(…)`, inside the tail's own `async with` and fed by it."""

    def __init__(
        self,
        *,
        log: EventLog,
        tail: Tail,
        hub: Hub | None = None,
        max_streams: int = 20_000,
        heartbeat_seconds: float = 15.0,
        clock: Clock = now,
        monotonic: Callable[[], float] = time.monotonic,
        random_ms: Callable[[int, int], int] = randint,
    ) -> None:
        self.hub = hub or Hub(tail.write)
        self.hub.delivered = self._delivered
        self.counts = Counts()
        self._past = Past(log, self.hub)
        self._starting = Starting(log, self.hub, tail)
        self._around = Surroundings(
            hub=self.hub,
            past=self._past,
            write_cursor=tail.write,
            spawn=self._spawn,
            left=self._left,
            monotonic=monotonic,
            drain_retry_ms=lambda: random_ms(*DRAIN_RETRY_MS),
            counts=self.counts,
        )
        self._max_streams = max_streams
        self._clock = clock
        self._monotonic = monotonic
        self._random_ms = random_ms
        self._streams: dict[str, Stream] = {}
        self._expiries: list[tuple[datetime, str]] = []
        self._revoked: OrderedDict[str, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        slots = max(1, ceil(heartbeat_seconds / TICK_SECONDS))
        self._tick_seconds = heartbeat_seconds / slots
        self._wheel: list[set[Stream]] = [set() for _ in range(slots)]
        self._hand = 0
        tail.add(self.feed)

    async def __aenter__(self) -> Self:
        self._ticking = asyncio.create_task(self._tick_on(), name="streams")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain()
        for task in (self._ticking, *self._tasks):
            task.cancel()
        await asyncio.wait([self._ticking, *self._tasks])
        await self._past.close()
        await self._starting.close()

    def write_cursor(self, cursor: Cursor) -> str:
        return self._around.write_cursor(cursor)

    # --- opening -------------------------------------------------------------------------------------------------

    async def open(self, wish: Wish) -> Opening:
        """A place for a stream, taken.

        Raises:
            Overloaded: there is no room, or the gateway is stopping, or the log cannot be read now.
            Unauthenticated: the key was revoked in this moment.
        """
        stream = self._admit(wish)
        try:
            return Opening(stream, await self._starting.find(wish.start))
        except GatewayError:
            stream.went_away()
            raise
        except Exception as error:
            _log.warning("stream.start_unreadable", error=repr(error))
            stream.went_away()
            raise StorageUnavailable("The log cannot be read now") from error
        except asyncio.CancelledError:
            stream.went_away()
            raise

    def retry_ms_when_turned_away(self) -> int:
        """For a browser that cannot be served now: when to come back."""
        return self._random_ms(*TURNED_AWAY_RETRY_MS)

    def _admit(self, wish: Wish) -> Stream:
        if self._draining:
            raise Overloaded("The gateway is stopping")
        if len(self._streams) >= self._max_streams:
            raise Overloaded("There are as many streams as the gateway serves", retry_after_seconds=5)
        if wish.key_id in self._revoked:
            raise Unauthenticated("this key was revoked")
        stream = Stream(
            self._around,
            id_=str(TypeID("str")),
            key_id=wish.key_id,
            address=wish.address,
            opened_at=self._clock(),
            channel=self.hub.enter(Selection(wish.filter, wish.libraries, wish.encoding)),
            encoding=wish.encoding,
        )
        self._streams[stream.id] = stream
        stream.slot = self._hand
        self._wheel[stream.slot].add(stream)
        if wish.expires_at is not None:
            heapq.heappush(self._expiries, (wish.expires_at, stream.id))
        return stream

    # --- while they are open -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._streams)

    def share(self) -> Share:
        """The figures of all streams."""
        counts = self.counts
        return Share(
            subscribers=len(self._streams),
            delivered=counts.live_events_delivered,
            latency_seconds=counts.latency_seconds,
            extras={
                "streams": len(self._streams),
                "stream_events_delivered": counts.events_delivered,
                "stream_gaps": counts.gaps,
            },
        )

    def all(self) -> Sequence[Stream]:
        return tuple(self._streams.values())

    def get(self, stream_id: str) -> Stream | None:
        return self._streams.get(stream_id)

    def feed(self, page: Page) -> None:
        """The next page of the log, from the tail."""
        self.hub.feed(page)
        for stream in tuple(self._around.ahead):
            stream.catch_up()
        for event in page.events:
            if event.type == KEY_REVOKED:
                self.end_for_key(json.loads(event.data)["key_id"])

    def tick(self) -> None:
        """Once every `TICK_SECONDS` or so: a heartbeat for those whose turn it is, and an end for those whose time is
        over or who are too far behind."""
        self._hand = (self._hand + 1) % len(self._wheel)
        for stream in tuple(self._wheel[self._hand]):
            stream.beat()
        moment = self._clock()
        while self._expiries and self._expiries[0][0] <= moment:
            _, stream_id = heapq.heappop(self._expiries)
            if (expired := self._streams.get(stream_id)) is not None:
                expired.expire(End.EXPIRED)
        self._close_laggards()

    def end(self, stream_id: str) -> bool:
        """End one, cleanly. False: there is none of this id."""
        if (stream := self._streams.get(stream_id)) is None:
            return False
        stream.end(End.ENDED, retry_ms=RETRY_MS)
        return True

    def end_for_key(self, key_id: str) -> None:
        """*key_id* was revoked: its streams end, and those that are being opened with it do not begin."""
        self._revoked[key_id] = None
        if len(self._revoked) > REVOKED_KEPT:
            self._revoked.popitem(last=False)
        for stream in self.all():
            if stream.key_id == key_id:
                stream.expire(End.REVOKED)

    async def drain(self) -> None:
        """Take no more, and end all: each is told to come back after a time of its own."""
        self._draining = True
        while self._streams:
            for stream in self.all()[:DRAINED_AT_ONCE]:
                stream.server_stops()
            await asyncio.sleep(0)

    # --- inside --------------------------------------------------------------------------------------------------

    def _close_laggards(self) -> None:
        moment = self._monotonic()
        for stream in tuple(self._around.behind):
            lag = stream.lag_bytes
            stalled = moment - stream.progressed_at >= PATIENCE_SECONDS
            outrun = moment - stream.behind_since >= PATIENCE_SECONDS
            if (stalled and lag >= STALLED_BYTES) or (outrun and lag >= OUTRUN_BYTES):
                _log.info("stream.too_slow", stream=stream.id, key=stream.key_id, lag_bytes=lag, stalled=stalled)
                stream.cut_off(End.TOO_SLOW)

    def _delivered(self, leaf: Leaf, sheet: Sheet, members: int) -> None:
        counts = self.counts
        delivered = len(sheet.frames) * members
        counts.frames += delivered
        counts.bytes += sheet.size * members
        counts.events_delivered += delivered
        counts.live_events_delivered += delivered
        latency = max(0.0, (self._clock() - leaf.events[-1].accepted_at).total_seconds())
        counts.latency_seconds += latency * delivered
        counts.lag.observe(latency, delivered)

    def _left(self, stream: Stream) -> None:
        self._streams.pop(stream.id, None)
        self._wheel[stream.slot].discard(stream)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="stream")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tick_on(self) -> None:
        while True:
            await asyncio.sleep(self._tick_seconds)
            try:
                self.tick()
            except Exception:  # noqa: BLE001 - one bad tick is logged, and stops no heartbeat
                _log.exception("streams.tick_failed")
