"""Tell the functions of this process that asked for events, each by itself, by a cursor of its own.

    tail ─feed(page)─▶ recent pages ─┐
                                     ├─▶ one task a handler: next page ─▶ filter ─▶ where ─▶ call, timed
    log ─ read(cursor), when behind ─┘

Nothing queues up: a handler that is slow reads on from the log where it was. One that raises, hangs or is slow harms
no other: it is counted, logged, and cut off when its time is up.
"""

import asyncio
import inspect
import json
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self

import msgspec
import structlog

from gateway.events import Cursor, Event, LoggedEvent, Page
from gateway.filters import Candidate, Filter, Matcher
from gateway.inprocess.own_thread import OwnThread
from gateway.ports.log import EventLog
from gateway.statistics import Share
from gateway.times import Clock, now

Handler = Callable[[Event], Any]
"""A coroutine function, or a plain one, which is called in a thread of its own."""

TIMEOUT_SECONDS: Final = 30.0
RECENT_BYTES: Final = 4 * 2**20
"""How much of the newest pages is kept at hand for handlers that keep up."""
RETRY_SECONDS: Final = 1.0
"""When a log that could not be read is asked again."""
TURN_EVENTS: Final = 64
"""After so many events a handler lets others have the loop, even if it never waits for anything."""
PATIENCE_SECONDS: Final = 1.0
"""How long handlers have to go when all end."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Registration:
    """A handler and what it wants. *where* is asked on the event loop, and has to be quick."""

    id: str
    handler: Handler
    filter: Filter
    where: Callable[[Event], Any] | None = None
    timeout_seconds: float = TIMEOUT_SECONDS

    @property
    def name(self) -> str:
        """As logs call it."""
        return getattr(self.handler, "__qualname__", None) or repr(self.handler)


class Handlers:
    """Runs as `async with Handlers(log)`, with `feed` on the tail."""

    def __init__(self, log: EventLog, *, clock: Clock = now) -> None:
        self.log = log
        self.clock = clock
        self.head = Cursor(0)
        """Up to where the tail has handed out."""
        self._recent: deque[Page] = deque()
        self._recent_bytes = 0
        self._runners: dict[str, _Runner] = {}
        self._left = _Tally()
        """What those did that are gone."""
        self.progress = asyncio.Event()
        """Set whenever a handler has done with an event."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [self._drop(registration_id) for registration_id in tuple(self._runners)]
        if tasks:
            await asyncio.wait(tasks, timeout=PATIENCE_SECONDS)

    def feed(self, page: Page) -> None:
        """Take the next page of the log (a feed of the tail)."""
        self.head = page.last
        if not page.events:
            return
        self._recent.append(page)
        self._recent_bytes += _size(page)
        while self._recent_bytes > RECENT_BYTES and len(self._recent) > 1:
            self._recent_bytes -= _size(self._recent.popleft())
        for runner in self._runners.values():
            runner.news.set()

    def add(self, registration: Registration, *, after: Cursor | None = None) -> None:
        """Call its handler with what comes after *after*; None: after what the tail has handed out."""
        cursor = self.head if after is None else after
        self._runners[registration.id] = _Runner(registration, self, cursor)

    async def remove(self, registration_id: str) -> bool:
        """Call it no more; a call that is under way is cut off. False: there is no such handler."""
        runner = self._runners.get(registration_id)
        if runner is None:
            return False
        task = self._drop(registration_id)
        if task is not asyncio.current_task():  # a handler may take itself away
            await asyncio.wait([task], timeout=PATIENCE_SECONDS)
        return True

    async def caught_up(self, *, patience_seconds: float) -> bool:
        """Wait until every handler has done with all that is in the log now. False: not within that time."""
        head = (await self.log.position()).head
        try:
            async with asyncio.timeout(patience_seconds):
                while any(runner.cursor < head for runner in self._runners.values()):
                    self.progress.clear()
                    await self.progress.wait()
        except TimeoutError:
            return False
        return True

    def share(self) -> Share:
        """The figures of all handlers."""
        tally = self._left
        for runner in self._runners.values():
            tally += runner.tally
        behind = [max(0, self.head - runner.cursor) for runner in self._runners.values()]
        return Share(
            subscribers=len(self._runners),
            waiting=max(behind, default=0),
            delivered=tally.delivered,
            latency_seconds=tally.latency_seconds,
            extras={
                "handler_failures": tally.failed,
                "handler_timeouts": tally.timed_out,
                "handler_missed": tally.missed,
            },
        )

    def recent(self, cursor: Cursor) -> Page | None:
        """The page at hand that goes on from *cursor*, if there is one."""
        return next((page for page in reversed(self._recent) if page.after <= cursor < page.last), None)

    def _drop(self, registration_id: str) -> asyncio.Task[None]:
        runner = self._runners.pop(registration_id)
        self.progress.set()
        self._left += runner.tally
        runner.stop()
        return runner.task


@dataclass(slots=True)
class _Tally:
    delivered: int = 0
    latency_seconds: float = 0.0
    failed: int = 0
    timed_out: int = 0
    missed: int = 0

    def __add__(self, other: "_Tally") -> "_Tally":
        return _Tally(
            delivered=self.delivered + other.delivered,
            latency_seconds=self.latency_seconds + other.latency_seconds,
            failed=self.failed + other.failed,
            timed_out=self.timed_out + other.timed_out,
            missed=self.missed + other.missed,
        )


class _Runner:
    """One handler's task: its cursor moves past an event when the handler is done with it, one way or another."""

    def __init__(self, registration: Registration, home: Handlers, cursor: Cursor) -> None:
        self.cursor = cursor
        self.news = asyncio.Event()
        self.tally = _Tally()
        self._registration = registration
        self._home = home
        self._matcher = Matcher(registration.filter)
        self._thread: OwnThread | None = None
        if not _is_coroutine_function(registration.handler):
            self._thread = OwnThread(registration.handler, f"handler {registration.name}")
        self._stopped = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"handler {registration.name}")

    def stop(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.close()
        if self.task is not asyncio.current_task():
            self.task.cancel()

    async def _run(self) -> None:
        while not self._stopped.is_set():
            page = await self._next()
            if (first := page.events[0].cursor) > self.cursor + 1:
                self.tally.missed += first - self.cursor - 1
                _log.warning("handler.missed", handler=self._registration.name, after=self.cursor, next=first)
            for event in page.events:
                if event.cursor > self.cursor:
                    await self._consider(event)
                    self.cursor = event.cursor
                    self._home.progress.set()
                    if self._stopped.is_set():
                        return
                    if event.cursor % TURN_EVENTS == 0:
                        await asyncio.sleep(0)

    async def _next(self) -> Page:
        """The events that come next, waiting until there are some."""
        while True:
            self.news.clear()
            page = self._home.recent(self.cursor)
            if page is None and self._home.head > self.cursor:
                page = await self._read()
            if page is not None and page.events:
                return page
            await self.news.wait()

    async def _read(self) -> Page | None:
        try:
            return await self._home.log.read(self.cursor)
        except Exception as error:  # noqa: BLE001 - whatever ails the log, it is asked again until it is well
            _log.warning("handler.log_unreadable", handler=self._registration.name, error=repr(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS):
                    await self.news.wait()
            self.news.set()
            return None

    async def _consider(self, logged: LoggedEvent) -> None:
        """Call the handler if the event is for it. Nothing that it does gets out of here but its being cancelled."""
        registration = self._registration
        deadline = asyncio.timeout(registration.timeout_seconds)
        try:
            if not self._matcher.matches(Candidate(logged)):
                return
            event = event_of(logged)
            if registration.where is not None and not registration.where(event):
                return
            async with deadline:
                await self._call(event)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and self.task.cancelling():
                raise  # it is this task that is to end, not something that the handler waited for
            self._failed(logged, timed_out=deadline.expired())
        else:
            if not logged.is_gateways_own:
                self.tally.delivered += 1
                self.tally.latency_seconds += max(0.0, (self._home.clock() - logged.accepted_at).total_seconds())
        if self._thread is not None:
            await self._thread.settled()  # a plain function cannot be cut off: what it holds up is itself

    def _failed(self, logged: LoggedEvent, *, timed_out: bool) -> None:
        facts = {"handler": self._registration.name, "event_id": logged.id, "type": logged.type}
        if timed_out:
            self.tally.timed_out += 1
            _log.error("handler.timed_out", **facts)
        else:
            self.tally.failed += 1
            # As text: structlog's own rendering of a traceback, with its locals, can take the loop for a second.
            _log.error("handler.failed", exception=traceback.format_exc(), **facts)

    async def _call(self, event: Event) -> None:
        handler = self._registration.handler
        answer = handler(event) if self._thread is None else await self._thread.call(event)
        if inspect.isawaitable(answer):
            await answer


def event_of(logged: LoggedEvent) -> Event:
    """*logged* as programs see it. Each caller gets data of its own, which it may change."""
    return Event(
        id=logged.id,
        type=logged.type,
        library_id=logged.library_id,
        data=_decoded(logged.data),
        timestamp=logged.timestamp,
        cursor=logged.cursor,
        accepted_at=logged.accepted_at,
    )


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError:
        # Half a surrogate pair, or a number beyond floating point: JSON all the same. An integer of more than 4,300
        # digits, which Python refuses to read, becomes infinite.
        return dict(json.loads(data, parse_int=lambda digits: int(digits) if len(digits) < 4300 else float(digits)))


def _is_coroutine_function(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)


def _size(page: Page) -> int:
    return sum(len(event.data) for event in page.events)
