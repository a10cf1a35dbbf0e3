"""Functions that are called with events: each by itself, in order, and none able to harm another."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.bus.memory import MemoryBus
from gateway.events import Cursor, Event, Page
from gateway.filters import Filter
from gateway.inprocess.handlers import RECENT_BYTES, Handler, Handlers, Registration
from gateway.storage.memory import MemoryEventLog
from tests.builders import HandClock, a_draft, a_page


class Room:
    """Handlers over a log in memory, fed as the tail would."""

    def __init__(self, log: MemoryEventLog, handlers: Handlers, clock: HandClock) -> None:
        self.log, self.handlers, self.clock = log, handlers, clock
        self.logs: list[Any] = []
        self._number = 0

    async def subscribe(
        self,
        handler: Handler,
        *,
        types: list[str] | None = None,
        expression: str | None = None,
        where: Callable[[Event], Any] | None = None,
        timeout_seconds: float = 5.0,
    ) -> str:
        self._number += 1
        registration = Registration(
            id=f"h{self._number}",
            handler=handler,
            filter=Filter.parse(types=types, expression=expression),
            where=where,
            timeout_seconds=timeout_seconds,
        )
        self.handlers.add(registration, after=(await self.log.position()).head)
        return registration.id

    async def publish(self, *numbers: int, type_: str = "custom") -> None:
        await self.log.append([[a_draft(type=type_, data=b'{"n":%d}' % number) for number in numbers]])

    async def settled(self) -> None:
        assert await self.handlers.caught_up(patience_seconds=5)

    def figure(self, name: str) -> float:
        return self.handlers.share().extras[name]


@asynccontextmanager
async def a_room(log: MemoryEventLog | None = None) -> AsyncIterator[Room]:
    bus, clock = MemoryBus(), HandClock()
    log = log or MemoryEventLog(bus, clock=clock)
    async with Handlers(log, clock=clock) as handlers:
        bus.listen(lambda page: handlers.feed(page) if page is not None else None)
        yield Room(log, handlers, clock)


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    with capture_logs() as logs:
        async with a_room() as room:
            room.logs = logs
            yield room


class Seen:
    """A handler that remembers."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.events: list[Event] = []

    async def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.numbers.append(event.data.get("n", -1))


async def test_a_handler_gets_events_as_programs_see_them(room: Room) -> None:
    seen = Seen()
    await room.subscribe(seen)
    await room.publish(7)
    await room.settled()
    (event,) = seen.events
    assert (event.type, event.library_id, event.data, event.cursor) == ("custom", "books", {"n": 7}, 1)
    assert event.id is not None
    assert event.timestamp == event.accepted_at == room.clock.moment


async def test_everything_comes_in_order_and_once(room: Room) -> None:
    seen, late = Seen(), Seen()
    await room.subscribe(seen)
    for number in range(300):
        await room.publish(number)
        if number == 99:
            await room.subscribe(late)
        if number % 7 == 0:
            await room.settled()
    await room.settled()
    assert seen.numbers == list(range(300))
    assert late.numbers == list(range(100, 300))


async def test_a_handler_gets_what_it_asked_for(room: Room) -> None:
    typed, branch, word, chosen = Seen(), Seen(), Seen(), Seen()
    await room.subscribe(typed, types=["a.b", "c"])
    await room.subscribe(branch, types=["a.*"])
    await room.subscribe(word, expression="event.data.n > 1")
    await room.subscribe(chosen, where=lambda event: event.data["n"] % 2)
    for number, type_ in enumerate(["a.b", "a.c", "c", "d"]):
        await room.publish(number, type_=type_)
    await room.settled()
    assert [typed.numbers, branch.numbers, word.numbers, chosen.numbers] == [[0, 2], [0, 1], [2, 3], [1, 3]]


async def test_each_handler_may_do_with_its_data_what_it_likes(room: Room) -> None:
    seen = Seen()

    async def spoil(event: Event) -> None:
        assert isinstance(event.data, dict)
        event.data["n"] = "spoilt"

    await room.subscribe(spoil)
    await room.subscribe(seen)
    await room.publish(1, 2)
    await room.settled()
    assert seen.numbers == [1, 2]


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (rb'{"x":"\ud800"}', "\ud800"),
        (b'{"x":1e999}', float("inf")),
        (b'{"x":' + b"9" * 5000 + b"}", float("inf")),
        (b'{"x":12345678901234567890123}', 12345678901234567890123),
    ],
)
async def test_data_that_is_odd_json_arrives_all_the_same(room: Room, data: bytes, value: object) -> None:
    seen = Seen()
    await room.subscribe(seen)
    await room.log.append([[a_draft(data=data)]])
    await room.settled()
    assert seen.events[0].data == {"x": value}


# --- harm ------------------------------------------------------------------------------------------------------------


class Exploding(Seen):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    async def __call__(self, event: Event) -> None:
        await super().__call__(event)
        raise self.error


@pytest.mark.parametrize("error", [ValueError("bug"), asyncio.CancelledError(), TimeoutError(), SystemExit(1)])
async def test_a_handler_that_raises_is_counted_and_goes_on(room: Room, error: BaseException) -> None:
    exploding, well = Exploding(error), Seen()
    await room.subscribe(exploding)
    await room.subscribe(well)
    await room.publish(1, 2)
    await room.settled()
    assert exploding.numbers == well.numbers == [1, 2]
    assert room.figure("handler_failures") == 2
    assert room.figure("handler_timeouts") == 0
    assert room.handlers.share().delivered == 2
    first, _ = room.logs
    assert (first["event"], first["type"]) == ("handler.failed", "custom")
    assert "Exploding" in first["handler"]
    assert type(error).__name__ in first["exception"]


async def test_a_predicate_that_raises_is_a_failure_and_no_match(room: Room) -> None:
    seen = Seen()
    await room.subscribe(seen, where=lambda event: event.data["absent"])
    await room.publish(1)
    await room.settled()
    assert seen.numbers == []
    assert room.figure("handler_failures") == 1


async def test_a_handler_that_hangs_is_cut_off_and_holds_up_nobody(room: Room) -> None:
    well = Seen()
    numbers: list[int] = []
    cut: list[int] = []

    async def hang(event: Event) -> None:
        numbers.append(event.data["n"])
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cut.append(event.data["n"])
            raise

    await room.subscribe(hang, timeout_seconds=0.01)
    await room.subscribe(well)
    await room.publish(1, 2)
    await room.settled()
    assert numbers == cut == well.numbers == [1, 2]
    assert room.figure("handler_timeouts") == 2
    assert room.handlers.share().delivered == 2


async def test_a_handler_that_never_waits_leaves_turns_to_others(room: Room) -> None:
    greedy = Seen()
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while len(greedy.numbers) < 1000:
            turns += 1
            await asyncio.sleep(0)

    await room.subscribe(greedy)
    taking = asyncio.create_task(take_turns())
    await room.publish(*range(1000))
    await room.settled()
    await taking
    assert turns >= 10


async def test_a_slow_handler_queues_nothing_and_reads_on_from_the_log(room: Room) -> None:
    go = asyncio.Event()
    seen = Seen()

    async def slow(event: Event) -> None:
        await go.wait()
        await seen(event)

    await room.subscribe(slow)
    big = b'{"n":%d,"s":"' + b"x" * 100_000 + b'"}'
    for number in range(100):
        await room.log.append([[a_draft(data=big % number)]])
    kept = sum(len(event.data) for page in room.handlers._recent for event in page.events)
    assert kept <= RECENT_BYTES + 100_100
    assert room.handlers.share().waiting == 100
    go.set()
    await room.settled()
    assert seen.numbers == list(range(100))
    assert room.handlers.share().waiting == 0


async def test_what_the_log_forgot_meanwhile_is_counted_as_missed() -> None:
    async with a_room() as room:
        began, go, seen = asyncio.Event(), asyncio.Event(), Seen()

        async def slow(event: Event) -> None:
            began.set()
            await go.wait()
            await seen(event)

        await room.subscribe(slow)
        await room.publish(0)
        await began.wait()
        for number in range(1, 60):  # more than is kept at hand
            await room.log.append([[a_draft(data=b'{"n":%d,"s":"%b"}' % (number, b"x" * 100_000))]])
        room.log.drop(Cursor(5))
        go.set()
        await room.settled()
        assert seen.numbers == [0, *range(5, 60)]
        assert room.figure("handler_missed") == 4


async def test_a_log_that_cannot_be_read_is_asked_again() -> None:
    failed = asyncio.Event()

    class Ailing(MemoryEventLog):
        async def read(self, after: Cursor, *, limit: int = 1000, max_bytes: int = 2**20) -> Page:
            if not failed.is_set():
                failed.set()
                raise OSError("no disk")
            return await super().read(after, limit=limit, max_bytes=max_bytes)

    seen = Seen()
    async with a_room(Ailing()) as room:
        await room.subscribe(seen)
        await room.publish(1)
        await room.log.append([[a_draft(id="second", data=b'{"n":2}')]])
        newest = await room.log.get("second")
        assert newest is not None
        room.handlers.feed(a_page([newest]))  # with a hole before it: the log has to say what was there
        await failed.wait()
        await room.publish(3)
        room.handlers.feed(await room.log.read(Cursor(2)))
        await room.settled()
        assert seen.numbers == [1, 2, 3]


# --- plain functions -------------------------------------------------------------------------------------------------


async def test_a_plain_function_is_called_in_order_in_one_thread_that_is_its_own(room: Room) -> None:
    calls: list[tuple[int, int]] = []

    def plain(event: Event) -> None:
        calls.append((event.data["n"], threading.get_ident()))

    await room.subscribe(plain)
    await room.publish(*range(20))
    await room.settled()
    assert [number for number, _ in calls] == list(range(20))
    assert len({thread for _, thread in calls} - {threading.get_ident()}) == 1


async def test_a_plain_function_that_hangs_holds_up_only_itself(room: Room) -> None:
    go, well = threading.Event(), Seen()
    numbers: list[int] = []

    def hang(event: Event) -> None:
        numbers.append(event.data["n"])
        if event.data["n"] == 1:
            go.wait()

    await room.subscribe(hang, timeout_seconds=0.01)
    await room.subscribe(well)
    await room.publish(1, 2)
    assert not await room.handlers.caught_up(patience_seconds=0.1)
    assert (numbers, well.numbers) == ([1], [1, 2])
    assert room.figure("handler_timeouts") == 1
    go.set()
    await room.settled()
    assert numbers == [1, 2]


@pytest.mark.parametrize("error", [ValueError("bug"), SystemExit(1), StopIteration(), KeyboardInterrupt()])
async def test_a_plain_function_that_raises_is_counted_and_goes_on(room: Room, error: BaseException) -> None:
    numbers: list[int] = []

    def fail(event: Event) -> None:
        numbers.append(event.data["n"])
        raise error

    await room.subscribe(fail)
    await room.publish(1, 2)
    await room.settled()
    assert numbers == [1, 2]
    assert room.figure("handler_failures") == 2
    assert type(error).__name__ in room.logs[0]["exception"]


async def test_an_object_that_is_called_like_a_coroutine_function_is_called_on_the_loop(room: Room) -> None:
    threads: list[int] = []

    class Asynchronous:
        async def __call__(self, _: Event) -> None:
            threads.append(threading.get_ident())

    handler = Asynchronous()
    await room.subscribe(handler)
    await room.publish(1)
    await room.settled()
    assert threads == [threading.get_ident()]
    assert f"handler {handler!r}" not in {thread.name for thread in threading.enumerate()}


async def test_what_a_plain_function_answers_is_awaited_if_it_can_be(room: Room) -> None:
    seen = Seen()

    def plain(event: Event) -> Awaitable[None]:
        assert threading.current_thread().daemon  # else one that hangs would keep the process from ending
        return seen(event)

    await room.subscribe(plain)
    await room.publish(1)
    await room.settled()
    assert seen.numbers == [1]


async def test_its_thread_ends_with_it(room: Room) -> None:
    threads: list[threading.Thread] = []
    plain = await room.subscribe(lambda _: threads.append(threading.current_thread()))
    await room.publish(1)
    await room.settled()
    await room.handlers.remove(plain)
    await asyncio.to_thread(threads[0].join, 5)
    assert not threads[0].is_alive()


# --- coming and going ------------------------------------------------------------------------------------------------


async def test_who_was_removed_is_called_no_more(room: Room) -> None:
    gone, here = Seen(), Seen()
    handler_id = await room.subscribe(gone)
    await room.subscribe(here)
    await room.publish(1)
    await room.settled()
    assert await room.handlers.remove(handler_id)
    assert not await room.handlers.remove(handler_id)
    await room.publish(2)
    await room.settled()
    assert (gone.numbers, here.numbers) == ([1], [1, 2])


async def test_a_call_that_is_under_way_is_cut_off_when_its_handler_goes(room: Room) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def hang(_: Event) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    handler_id = await room.subscribe(hang)
    await room.publish(1)
    await began.wait()
    assert await room.handlers.remove(handler_id)
    assert ended.is_set()


async def test_a_handler_may_take_itself_away(room: Room) -> None:
    began: list[int] = []
    ended = Seen()

    async def once(event: Event) -> None:
        began.append(event.data["n"])
        assert await room.handlers.remove(handler_id)
        await asyncio.sleep(0)
        await ended(event)

    handler_id = await room.subscribe(once)
    task = room.handlers._runners[handler_id].task
    await room.publish(1, 2)
    await asyncio.wait([task], timeout=5)
    assert began == ended.numbers == [1]
    assert room.figure("handler_failures") == 0


async def test_a_handler_may_begin_in_the_middle_of_a_page(room: Room) -> None:
    seen, other = Seen(), Seen()
    await room.publish(1, 2, 3)
    registration = Registration(id="late", handler=seen, filter=Filter())
    room.handlers.add(registration, after=Cursor(2))
    room.handlers.add(Registration(id="now", handler=other, filter=Filter()))
    await room.settled()
    assert seen.numbers == [3]
    assert other.numbers == []


async def test_a_handlers_task_that_is_cancelled_from_outside_ends(room: Room) -> None:
    began = asyncio.Event()

    async def hang(_: Event) -> None:
        began.set()
        await asyncio.Event().wait()

    task = room.handlers._runners[await room.subscribe(hang)].task
    await room.publish(1)
    await began.wait()
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()


async def test_at_the_end_all_are_cut_off() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def hang(_: Event) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with a_room() as room:
        await room.subscribe(hang)
        await room.publish(1)
        await began.wait()
    assert ended.is_set()


# --- figures ---------------------------------------------------------------------------------------------------------


async def test_the_figures_of_handlers(room: Room) -> None:
    one = await room.subscribe(Seen())
    await room.subscribe(Seen(), types=["custom", "gateway.*"])

    async def later(_: Event) -> None:
        room.clock.moment += timedelta(milliseconds=1)

    await room.publish(1, 2)
    await room.publish(3, type_="gateway.ping")
    await room.settled()
    share = room.handlers.share()
    assert (share.subscribers, share.waiting, share.delivered, share.latency_seconds) == (2, 0, 4, 0.0)
    await room.subscribe(later, types=["custom"])
    await room.handlers.remove(one)
    await room.publish(4)
    await room.settled()
    share = room.handlers.share()
    assert (share.subscribers, share.delivered) == (2, 6)
    assert 0.001 <= share.latency_seconds <= 0.002


async def test_those_that_were_never_called_have_caught_up(room: Room) -> None:
    await room.subscribe(Seen(), types=["other"])
    assert await room.handlers.caught_up(patience_seconds=5)
    await room.publish(1)
    assert await room.handlers.caught_up(patience_seconds=5)


async def test_patience_ends(room: Room) -> None:
    async def hang(_: Event) -> None:
        await asyncio.Event().wait()

    await room.subscribe(hang)
    await room.publish(1)
    assert not await room.handlers.caught_up(patience_seconds=0.01)
