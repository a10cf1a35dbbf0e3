"""The tail hands out the whole log, once, in order, whatever the bus does and however the log fares."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.bus.memory import MemoryBus
from gateway.events import Cursor, Page, Position
from gateway.storage.memory import MemoryEventLog
from gateway.tail import READ_BYTES, READ_EVENTS, SLICE_BYTES, SLICE_EVENTS, Tail
from tests.builders import a_draft
from tests.until import until

NEVER = 3_600.0


class Bus:
    """Says what the test tells it to say."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Page | None], None]] = []

    def announce(self, page: Page | None) -> None:
        for listener in self.listeners:
            listener(page)

    def listen(self, listener: Callable[[Page | None], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)


class FrailLog(MemoryEventLog):
    """Fails when told to, and counts how often it is read."""

    fails = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.limits: list[int] = []

    @property
    def reads(self) -> int:
        return len(self.limits)

    async def read(self, after: Cursor, *, limit: int = 1000, max_bytes: int = 2**20) -> Page:
        self.limits.append(limit)
        if self.fails:
            raise OSError("the disk is away")
        return await super().read(after, limit=limit, max_bytes=max_bytes)


class Watcher:
    """Keeps what it is fed, and lets a test wait for it."""

    def __init__(self) -> None:
        self.pages: list[Page] = []
        self._news = asyncio.Event()

    def feed(self, page: Page) -> None:
        self.pages.append(page)
        self._news.set()

    @property
    def cursors(self) -> list[int]:
        return [event.cursor for page in self.pages for event in page.events]

    async def until(self, cursor: int) -> None:
        async with asyncio.timeout(5):
            while self.pages[-1].last < cursor:
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def tailing(
    log: MemoryEventLog, bus: Bus | MemoryBus, *, look_every_seconds: float = NEVER
) -> AsyncIterator[tuple[Tail, Watcher]]:
    tail, watcher = Tail(log, bus, look_every_seconds=look_every_seconds), Watcher()
    tail.add(watcher.feed)
    async with tail:
        yield tail, watcher


async def append(log: MemoryEventLog, count: int, size: int = 2) -> None:
    await log.append([[a_draft(data=b'"%b"' % (b"x" * (size - 2))) for _ in range(count)]])


async def test_it_begins_at_the_head_and_says_where_that_is() -> None:
    log = MemoryEventLog()
    await append(log, 3)
    async with tailing(log, Bus()) as (tail, watcher):
        assert watcher.pages == [Page(after=Cursor(3), events=())]
        assert tail.cursor == 3
        assert tail.write(Cursor(3)) == (await log.position()).write(Cursor(3))


async def test_a_page_that_continues_is_taken_without_reading_the_log() -> None:
    bus = MemoryBus()
    log = FrailLog(bus)
    async with tailing(log, bus) as (tail, watcher):
        await append(log, 2)
        await append(log, 2)
        await watcher.until(4)
        assert watcher.cursors == [1, 2, 3, 4]
        assert log.reads == 0
        assert tail.cursor == 4


async def test_a_page_after_a_hole_is_a_reason_to_read() -> None:
    bus, log = Bus(), FrailLog()
    async with tailing(log, bus) as (_, watcher):
        await append(log, 5)
        bus.announce(await log.read(Cursor(3)))
        await watcher.until(5)
        assert watcher.cursors == [1, 2, 3, 4, 5]


async def test_a_page_that_comes_before_its_turn_waits_for_it() -> None:
    bus, log = Bus(), FrailLog()
    async with tailing(log, bus) as (_, watcher):
        await append(log, 6)
        pages = [await log.read(Cursor(cursor), limit=2) for cursor in (4, 2, 0)]
        for page in pages:
            bus.announce(page)
            await asyncio.sleep(0)
        await watcher.until(6)
        assert watcher.cursors == [1, 2, 3, 4, 5, 6]
        assert log.reads == 3  # the test's own


async def test_what_is_missing_before_a_page_is_read_and_no_more() -> None:
    bus, log = Bus(), FrailLog()
    async with tailing(log, bus) as (_, watcher):
        await append(log, 5)
        bus.announce(await log.read(Cursor(3)))
        bus.announce(None)
        await watcher.until(5)
        await until(lambda: log.limits[1:] == [3, READ_EVENTS])
        assert watcher.cursors == [1, 2, 3, 4, 5]


async def test_a_page_that_the_log_does_not_have_is_let_go() -> None:
    bus, log, other = Bus(), FrailLog(), MemoryEventLog()
    async with tailing(log, bus) as (_, watcher):
        await append(other, 5)
        bus.announce(await other.read(Cursor(3)))
        await until(lambda: log.reads == 1)
        await append(log, 1)
        bus.announce(await log.read(Cursor(0)))
        await watcher.until(1)
        assert watcher.cursors == [1]


async def test_a_look_ends_with_what_is_less_than_a_read_takes() -> None:
    bus, log = Bus(), FrailLog(max_bytes=2**30)
    async with tailing(log, bus) as (_, watcher):
        await append(log, READ_EVENTS + 1)
        await append(log, 5, READ_BYTES // 4)
        bus.announce(None)
        await watcher.until(READ_EVENTS + 6)
        await until(lambda: log.reads == 4)  # 1,000 · one of them and three that are large · two · none
        bus.announce(None)
        await until(lambda: log.reads == 5)


async def test_what_was_seen_is_left_out_of_a_page_that_overlaps() -> None:
    bus, log = Bus(), FrailLog()
    async with tailing(log, bus) as (_, watcher):
        await append(log, 5)
        bus.announce(await log.read(Cursor(0), limit=3))
        await watcher.until(3)
        bus.announce(await log.read(Cursor(1), limit=1))
        bus.announce(await log.read(Cursor(1)))
        await watcher.until(5)
        assert watcher.cursors == [1, 2, 3, 4, 5]
        assert log.reads == 3  # the test's own


async def test_a_bare_hint_is_a_reason_to_read() -> None:
    bus, log = Bus(), MemoryEventLog()
    async with tailing(log, bus) as (_, watcher):
        await append(log, 2)
        bus.announce(None)
        await watcher.until(2)
        assert watcher.cursors == [1, 2]


async def test_it_looks_by_itself_when_the_bus_says_nothing() -> None:
    log = MemoryEventLog()
    async with tailing(log, Bus(), look_every_seconds=0.01) as (_, watcher):
        await append(log, 2)
        await watcher.until(2)


async def test_an_event_that_lands_while_it_starts_is_not_lost() -> None:
    bus = MemoryBus()

    class LogThatGrowsWhenAsked(MemoryEventLog):
        async def position(self) -> Position:
            found = await super().position()
            await append(self, 1)
            return found

    log = LogThatGrowsWhenAsked(bus)
    async with tailing(log, bus) as (_, watcher):
        await watcher.until(1)
        assert watcher.cursors == [1]


async def test_a_log_that_fails_is_asked_again_and_nothing_is_lost() -> None:
    bus, log = Bus(), FrailLog()
    async with tailing(log, bus, look_every_seconds=0.01) as (_, watcher):
        with capture_logs() as lines:
            log.fails = True
            await append(log, 3)
            await until(lambda: log.reads >= 3)
            log.fails = False
            await watcher.until(3)
            await until(lambda: len(lines) == 2)
        assert watcher.cursors == [1, 2, 3]
        assert [line["event"] for line in lines] == ["tail.log_unreadable", "tail.log_readable_again"]


async def test_one_feed_that_fails_keeps_no_page_from_the_others() -> None:
    bus = MemoryBus()
    log, tail, watcher = MemoryEventLog(bus), Tail(MemoryEventLog(bus), bus), Watcher()

    def broken(_: Page) -> None:
        raise ZeroDivisionError

    tail.add(broken)
    tail.add(watcher.feed)
    with capture_logs() as lines:
        async with tail:
            await append(log, 1)
            await watcher.until(1)
    assert {line["event"] for line in lines} == {"tail.feed_failed"}


@pytest.mark.parametrize(("count", "size"), [(20, SLICE_BYTES // 5), (3, SLICE_BYTES * 2), (SLICE_EVENTS * 2 + 1, 2)])
async def test_large_pages_are_handed_out_in_slices(count: int, size: int) -> None:
    bus = MemoryBus()
    log = MemoryEventLog(bus)
    async with tailing(log, bus) as (_, watcher):
        await append(log, count, size)
        await watcher.until(count)
    assert watcher.cursors == list(range(1, count + 1))
    for page, following in zip(watcher.pages, watcher.pages[1:], strict=False):
        assert following.after == page.last
        assert len(following.events) <= SLICE_EVENTS
        assert len(following.events) == 1 or sum(len(event.data) for event in following.events) <= SLICE_BYTES


async def test_pages_that_pile_up_are_let_go_and_read_from_the_log() -> None:
    bus, log = Bus(), FrailLog(max_bytes=2**30)
    async with tailing(log, bus) as (tail, watcher):
        await append(log, 40, 2**20)
        for cursor in range(40):
            bus.announce(await log.read(Cursor(cursor), limit=1))
        assert tail._carried_bytes < 18 * 2**20  # it is bounded
        await watcher.until(40)
        assert watcher.cursors == list(range(1, 41))


async def test_it_stops_listening_at_its_end() -> None:
    bus = Bus()
    async with tailing(MemoryEventLog(), bus):
        assert len(bus.listeners) == 1
    assert bus.listeners == []


async def test_before_its_start_it_knows_no_epoch() -> None:
    with pytest.raises(RuntimeError, match="not started"):
        Tail(MemoryEventLog(), Bus()).write(Cursor(1))
