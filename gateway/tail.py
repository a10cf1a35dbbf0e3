"""Read the log once for this process, and hand each page to everybody in it who lives off the log.

    log ─▶ [ Tail: one cursor ] ─▶ hub (streams) · handlers · fan-out (a wake-up) · keys (revocations)
     ▲ bus: "there is something new", perhaps with the page itself

A page that the bus carries is taken when it continues the cursor. One that comes early, because somebody else's is on
its way, waits for that a little; then what is missing is read, and no more. It also looks by itself now and then, so
that a lost announcement costs time and nothing else.
"""

import asyncio
from bisect import insort
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Self

import structlog

from gateway.events import Cursor, LoggedEvent, Page, Position
from gateway.ports.log import EventLog, LiveBus

Feed = Callable[[Page], None]
"""Takes the next page. Called on the event loop, in cursor order, without holes, with slices of about 64 KiB; the first
page of all is empty and says where the feed begins."""

LOOK_EVERY_SECONDS = 1.0
SLICE_BYTES = 64 * 2**10
"""Between two slices the loop gets a turn; what one causes to be written is joined: so neither long nor short."""
SLICE_EVENTS = 500
HOLE_SECONDS = 0.01
"""How long a page that came early waits for the one before it. Where pages are not carried a hint comes instead."""
READ_EVENTS = 1_000
READ_BYTES = 2**20
CARRIED_BYTES = 16 * 2**20
"""Pages that the bus has brought and that wait. Beyond this they are let go, and read from the log in their turn."""

_log = structlog.get_logger(__name__)


class Tail:
    """Runs as `async with Tail(log, bus)`; feeds are added before."""

    def __init__(self, log: EventLog, bus: LiveBus, *, look_every_seconds: float = LOOK_EVERY_SECONDS) -> None:
        self._log = log
        self._bus = bus
        self._look_every_seconds = look_every_seconds
        self._feeds: list[Feed] = []
        self._carried: list[Page] = []
        """In the order of the log."""
        self._carried_bytes = 0
        self._news = asyncio.Event()
        self._must_look = False
        """What the bus brings is not all."""
        self._position: Position | None = None
        self._blind = False
        self.cursor = Cursor(0)
        """Everything up to here has been handed out."""

    def add(self, feed: Feed) -> None:
        self._feeds.append(feed)

    def write(self, cursor: Cursor) -> str:
        """*cursor* as clients see it."""
        return self.started_at.write(cursor)

    @property
    def started_at(self) -> Position:
        """Where the log stood when the tail started; it names the log's epoch. There is none before."""
        if self._position is None:
            raise RuntimeError("the tail has not started")
        return self._position

    async def __aenter__(self) -> Self:
        # Listen before looking: what is committed between the two is then carried, and dropped if it was seen.
        self._unlisten = self._bus.listen(self._heard)
        try:
            self._position = await self._log.position()
        except BaseException:
            self._unlisten()
            raise
        self.cursor = self._position.head
        self._hand_out(Page(after=self.cursor, events=()))
        self._task = asyncio.create_task(self._run(), name="tail")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._unlisten()
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    def _heard(self, page: Page | None) -> None:
        if page is not None and self._carried_bytes <= CARRIED_BYTES:
            insort(self._carried, page, key=_after)
            self._carried_bytes += _size(page)
        else:
            self._must_look = True
        self._news.set()

    async def _run(self) -> None:
        while True:
            if not await self._hears(within_seconds=self._look_every_seconds):
                self._must_look = True
            await self._take_carried()
            if self._carried and not self._must_look:
                await self._wait_for_the_missing()
            if self._carried or self._must_look:
                await self._look()

    async def _hears(self, *, within_seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_seconds):
                await self._news.wait()
        there_is_news = self._news.is_set()
        self._news.clear()
        return there_is_news

    async def _take_carried(self) -> None:
        """Hand out what the bus has brought, up to a hole."""
        while self._carried and self._carried[0].after <= self.cursor:
            await self._take(self._drop_carried())

    def _drop_carried(self) -> Page:
        page = self._carried.pop(0)
        self._carried_bytes -= _size(page)
        return page

    async def _wait_for_the_missing(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + HOLE_SECONDS
        while self._carried and not self._must_look and (left := until - loop.time()) > 0:
            await self._hears(within_seconds=left)
            await self._take_carried()

    async def _look(self) -> None:
        """Read what is missing before pages that are there, and to the log's end if what the bus brings is not all. A
        log that cannot be read is asked again at the next look; it loses nothing."""
        try:
            while self._carried or self._must_look:
                await self._read_on()
                await self._take_carried()
        except Exception as error:  # noqa: BLE001 - whatever ails the log, this reader must be there when it is well
            if not self._blind:
                _log.warning("tail.log_unreadable", cursor=self.cursor, error=repr(error))
            self._blind = True
        else:
            if self._blind:
                _log.info("tail.log_readable_again", cursor=self.cursor)
            self._blind = False

    async def _read_on(self) -> None:
        if self._carried:
            hole = self._carried[0].after - self.cursor
            page = await self._log.read(self.cursor, limit=min(hole, READ_EVENTS), max_bytes=READ_BYTES)
            if not page.events:  # then what came early is not in the log either
                self._drop_carried()
        else:
            self._must_look = False  # whoever has news from here on says so again
            page = await self._log.read(self.cursor, limit=READ_EVENTS, max_bytes=READ_BYTES)
            # By a quarter of it: an event that found no room may be large.
            if len(page.events) == READ_EVENTS or _size(page) > READ_BYTES // 4:
                self._must_look = True
        await self._take(page)

    async def _take(self, page: Page) -> None:
        for part in _slices(page, self.cursor):
            self._hand_out(part)
            await asyncio.sleep(0)

    def _hand_out(self, page: Page) -> None:
        self.cursor = page.last
        for feed in self._feeds:
            try:
                feed(page)
            except Exception:  # noqa: BLE001 - one reader's bug is logged, and keeps no page from the others
                _log.exception("tail.feed_failed", feed=getattr(feed, "__qualname__", repr(feed)), after=page.after)


def _slices(page: Page, after: Cursor) -> Iterator[Page]:
    """What *page* holds beyond *after*, in order, in parts of a bounded size."""
    start = after
    part: list[LoggedEvent] = []
    size = 0
    for event in page.events:
        if event.cursor <= after:
            continue
        if part and (size + len(event.data) > SLICE_BYTES or len(part) >= SLICE_EVENTS):
            yield Page(after=start, events=tuple(part))
            start, part, size = part[-1].cursor, [], 0
        part.append(event)
        size += len(event.data)
    if part:
        yield Page(after=start, events=tuple(part))


def _after(page: Page) -> Cursor:
    return page.after


def _size(page: Page) -> int:
    return sum(len(event.data) for event in page.events)
