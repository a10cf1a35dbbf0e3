"""The event bus of this process: publish and subscribe as functions, over whatever log it runs on.

    get_event_bus() ─▶ EventBus ─▶ Engine (loop, publisher, handlers)     one in memory, started when first used,
                                                                          or the server's, once that is installed

The bus outlives its engine: who got it before the server started is heard by the server, and subscriptions go along.
"""

import asyncio
import concurrent.futures
import pkgutil
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from uuid import UUID

from typeid import TypeID

from gateway.bus.memory import MemoryBus
from gateway.errors import Conflict, InvalidInput
from gateway.events import Cursor, Event
from gateway.filters import Filter
from gateway.inprocess.handlers import TIMEOUT_SECONDS, Handler, Handlers, Registration
from gateway.intake import draft_of
from gateway.ports.log import IdTaken, Misfit, Receipt
from gateway.publishing import Publisher
from gateway.statistics import CountedPublisher, Counters, Publishing
from gateway.storage.memory import MemoryEventLog
from gateway.tail import Tail

T = TypeVar("T")

PATIENCE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Engine:
    """What a bus runs on. All of it belongs to `loop`."""

    loop: asyncio.AbstractEventLoop
    publisher: Publishing
    handlers: Handlers
    counters: Counters
    worker: asyncio.Task[Any] | None = None
    """The task that runs it, and whose end is its end."""


Opener = Callable[[str], AbstractAsyncContextManager[Engine]]

OPENERS: Final[Mapping[str, str]] = {
    "memory": "gateway.inprocess.eventbus:memory_engine",
    "sqlite": "gateway.inprocess.embedded:open_engine",
    "postgresql": "gateway.inprocess.embedded:open_engine",
}
"""By the scheme of a URL, who opens it (an `Opener`). Named, not imported: a program that only wants a bus in memory
does not have to load a database and a web server."""


class EventBus:
    """Publish events, and subscribe functions to them.

    `EventBus()` is one in memory that starts when it is first used; `async with EventBus.open(url)` is one on a log
    of its own; `get_event_bus()` is that of the process.
    """

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._starting: asyncio.Task[Engine] | None = None
        self._registrations: dict[str, Registration] = {}
        self._own: asyncio.Task[None] | None = None
        """Runs the engine in memory, if that is what it runs on."""
        self._idle = Counters()
        """The figures of a bus that has not started."""

    @staticmethod
    @asynccontextmanager
    async def open(url: str) -> "AsyncIterator[EventBus]":
        """A bus on the log at *url*: `memory://`, `sqlite:///events.db`, `postgresql://…`.

        At the end handlers get 5 s to catch up.

        Raises:
            ValueError: it is no such URL.
        """
        scheme = url.partition(":")[0]
        if scheme not in OPENERS:
            raise ValueError(f"cannot open {url!r}: it must begin with one of {', '.join(OPENERS)}")
        opener: Opener = pkgutil.resolve_name(OPENERS[scheme])
        async with opener(url) as engine:
            bus = EventBus()
            detach = bus.attach(engine)
            try:
                yield bus
                await bus.caught_up()
            finally:
                detach()

    def attach(self, engine: Engine) -> Callable[[], None]:
        """Run on *engine*, with all subscriptions. Called in its loop; answers what detaches it again."""
        if self._own is not None and self._own is not engine.worker:
            if not self._own.get_loop().is_closed():
                self._own.get_loop().call_soon_threadsafe(self._own.cancel)
            self._own = None
        self._engine = engine
        for registration in self._registrations.values():
            engine.handlers.add(registration)

        def detach() -> None:
            if self._engine is engine:
                self._engine = None

        return detach

    # --- publishing --------------------------------------------------------------------------------------------------

    async def publish(self, event: Event) -> Receipt:
        """Append *event*; it is in the log on return (on disk, if the log is).

        Raises:
            InvalidInput: naming each fault.
            TooLarge: it is larger than 256 KiB.
            Conflict: its id is known, with other content.
            Overloaded: it cannot be taken now.
        """
        draft = draft_of(event)

        async def publish(engine: Engine) -> Receipt:
            appended = await engine.publisher.publish([draft])
            if isinstance(appended, IdTaken):
                raise Conflict(f"the id {appended.id} is known, with other content")
            if isinstance(appended, Misfit):
                faults = [fault for _, fault in appended.faults]
                raise InvalidInput(f"{faults[0].pointer} {faults[0].detail}", faults)
            return appended[0]

        return await self._within(publish)

    def publish_threadsafe(self, event: Event) -> "concurrent.futures.Future[Receipt]":
        """Publish from synchronous code, in any thread. Do not wait for the future in the bus's own.

        Raises:
            RuntimeError: the bus has not started: nothing was ever published or subscribed in a running loop.
        """
        loop = self._loop
        if loop is None or loop.is_closed():
            raise RuntimeError("the event bus has not started: use it first where an event loop runs")
        return asyncio.run_coroutine_threadsafe(self.publish(event), loop)

    # --- subscribing -------------------------------------------------------------------------------------------------

    async def subscribe(
        self,
        handler: Handler,
        event_type: str | None = None,
        *,
        event_types: Iterable[str] | None = None,
        library_id: str | UUID | None = None,
        filter: str | None = None,  # noqa: A002 - the word that streams and subscriptions use
        where: Callable[[Event], Any] | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> str:
        """Call *handler* with each event that is accepted from now on and matches; answers its id, for `unsubscribe`.

        Types may be branches (`document.*`); *filter* is a CEL expression; *where* a function that is quick. A plain
        function is called in a thread of its own. A call that takes longer than *timeout_seconds* is cut off.

        Raises:
            InvalidInput: naming what is wrong with the types, the library or the filter.
        """
        types = None if event_types is None and event_type is None else [*(event_types or ())]
        if types is not None and event_type is not None:
            types.append(event_type)
        registration = Registration(
            id=str(TypeID("hnd")),
            handler=handler,
            filter=Filter.parse(
                library_ids=None if library_id is None else [str(library_id)],
                types=None if types is None else [str(each) for each in types],
                expression=filter,
            ),
            where=where,
            timeout_seconds=timeout_seconds,
        )

        async def subscribe(engine: Engine) -> None:
            head: Cursor = (await engine.handlers.log.position()).head
            self._registrations[registration.id] = registration
            engine.handlers.add(registration, after=head)

        await self._within(subscribe)
        return registration.id

    async def unsubscribe(self, handler_id: str) -> bool:
        """Call that handler no more. False: there is no such handler."""
        if self._registrations.pop(handler_id, None) is None:
            return False

        async def unsubscribe(engine: Engine) -> None:
            await engine.handlers.remove(handler_id)

        await self._within(unsubscribe)
        return True

    async def caught_up(self, *, patience_seconds: float = PATIENCE_SECONDS) -> bool:
        """Wait until every handler is done with all that has been published so far. False: not within that time."""

        async def caught_up(engine: Engine) -> bool:
            return await engine.handlers.caught_up(patience_seconds=patience_seconds)

        return await self._within(caught_up)

    # --- watching ----------------------------------------------------------------------------------------------------

    def get_statistics(self) -> dict[str, Any]:
        """The figures of `GET /v1/events/stats`."""
        return (self._idle if self._engine is None else self._engine.counters).figures()

    @property
    def _loop(self) -> asyncio.AbstractEventLoop | None:
        """Where the bus runs: what synchronous code hands coroutines to. None until it has started."""
        return None if self._engine is None else self._engine.loop

    @property
    def _running(self) -> bool:
        return self._engine is not None and not self._engine.loop.is_closed()

    @property
    def _worker_task(self) -> asyncio.Task[Any] | None:
        return None if self._engine is None else self._engine.worker

    # --- its own engine ----------------------------------------------------------------------------------------------

    async def _within(self, work: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        """Do *work* in the bus's loop, starting the bus if it does not run."""
        engine = await self._started()
        if engine.loop is asyncio.get_running_loop():
            return await work(engine)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(engine), engine.loop))

    async def _started(self) -> Engine:
        if self._engine is not None and not self._engine.loop.is_closed():
            return self._engine
        starting = self._starting
        if starting is None or starting.get_loop().is_closed() or starting.done():
            starting = self._starting = asyncio.create_task(self._start(), name="event bus: start")
        return await asyncio.shield(starting)

    async def _start(self) -> Engine:
        """Start an engine in memory, which runs until its loop ends, or another engine takes its place."""
        running: asyncio.Future[Engine] = asyncio.get_running_loop().create_future()
        self._own = asyncio.create_task(self._run(running), name="event bus")
        return await running

    async def _run(self, running: "asyncio.Future[Engine]") -> None:
        try:
            async with memory_engine() as engine:
                self.attach(engine)
                running.set_result(engine)
                await asyncio.get_running_loop().create_future()
        except Exception as error:
            if running.done():
                raise
            running.set_exception(error)


@asynccontextmanager
async def memory_engine(url: str = "memory://") -> AsyncIterator[Engine]:
    """An engine whose log is in memory and is gone with it."""
    if url.removeprefix("memory:").strip("/"):
        raise ValueError(f"cannot open {url!r}: a log in memory has no name")
    counters = Counters()
    live = MemoryBus()
    log = MemoryEventLog(live)
    async with Publisher(log) as publisher, Handlers(log) as handlers:
        tail = Tail(log, live)
        tail.add(handlers.feed)
        counters.add(handlers.share)
        async with tail:
            yield Engine(
                loop=asyncio.get_running_loop(),
                publisher=CountedPublisher(publisher, counters),
                handlers=handlers,
                counters=counters,
                worker=asyncio.current_task(),
            )


_of_this_process = EventBus()


def get_event_bus() -> EventBus:
    """The event bus of this process: the server's once it runs, and until then one in memory."""
    return _of_this_process


def install(engine: Engine) -> Callable[[], None]:
    """Make *engine* what the process's bus runs on; answers what undoes it."""
    return _of_this_process.attach(engine)
