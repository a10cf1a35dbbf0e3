"""The log in memory keeps the promises of an event log, and forgets what is too much for it."""

import pytest

from gateway.bus.memory import MemoryBus
from gateway.events import Cursor, Page
from gateway.storage.memory import EVENT_OVERHEAD_BYTES, MemoryEventLog
from tests.builders import HandClock, a_draft
from tests.contracts.event_log import EventLogContract, LogUnderTest


@pytest.fixture
def subject() -> LogUnderTest:
    bus, clock = MemoryBus(), HandClock()
    announced: list[Page] = []
    bus.listen(lambda page: announced.append(page) if page is not None else None)
    log = MemoryEventLog(bus, clock=clock)

    async def drop(until: Cursor) -> None:
        log.drop(until)

    return LogUnderTest(log=log, clock=clock, announced=announced, drop=drop)


class TestMemoryEventLog(EventLogContract):
    pass


async def test_it_forgets_the_oldest_when_it_grows_too_large() -> None:
    log = MemoryEventLog(max_bytes=10 * (EVENT_OVERHEAD_BYTES + 2))
    for _ in range(25):
        await log.append([[a_draft()]])
    position = await log.position()
    assert (position.head, position.earliest) == (25, 16)
    assert [event.cursor for event in (await log.read(Cursor(0))).events] == list(range(16, 26))
    assert await log.dropped_until() is not None


async def test_two_logs_do_not_take_each_others_cursors() -> None:
    one, other = await MemoryEventLog().position(), await MemoryEventLog().position()
    assert other.read(one.write(Cursor(0))) is None
    assert one.read(one.write(Cursor(0))) == 0
