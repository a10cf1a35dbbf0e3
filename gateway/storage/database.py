"""The database as the stores see it, whichever engine is behind it: reads of one state, writes that are whole, and who
hears of commits."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Self, TypeVar

import structlog

from gateway.errors import StorageUnavailable
from gateway.events import Cursor, Draft, LoggedEvent, Page
from gateway.ports.nodes import Nodes
from gateway.storage.connection import Connection
from gateway.storage.moves import refuse_half
from gateway.storage.sealing import PLAIN, Seal, prepare
from gateway.times import Clock
from gateway.times import now as system_clock

T = TypeVar("T")
_logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Transaction:
    """A write in progress. What is put into `appended` is announced once it is committed."""

    connection: Connection
    seal: Seal
    appended: list[LoggedEvent] = field(default_factory=list)


Work = Callable[[Transaction], Awaitable[T]]

AppendAtOnce = Callable[[Sequence[Draft]], Awaitable[Sequence[LoggedEvent]]]
"""Appends drafts, at least one and each with an id of its own, if none of their ids is in the log; durable on return.

Answers them as they are in the log. If it answers none of them, they are not there, as far as is known: where a
connection broke, they may be.

Raises:
    StorageUnavailable: nothing was written.
"""


class Database(ABC):
    """`async with` opens it, migrated. Made by `gateway.storage.engines.database_of`.

    *seal* has to fit what is in it; None is for who neither reads nor writes anything sealed. *whole*: it may neither
    have moved nor be half a copy; False is for who moves it.
    """

    def __init__(self, *, clock: Clock = system_clock, seal: Seal | None = PLAIN, whole: bool = True) -> None:
        self.clock = clock
        self._whole = whole
        self.seal = seal or PLAIN
        self._checks_seal = seal is not None
        self._listeners: list[Callable[[Page], None]] = []
        self._under_way: set[asyncio.Task[object]] = set()
        self.nodes: Nodes | None = None
        """Which processes send; None: no other process can use this database."""
        self.append_at_once: AppendAtOnce | None = None
        """A shorter way to the log than `write`; None: there is none."""

    def on_commit(self, listener: Callable[[Page], None]) -> None:
        """Call *listener* with each page of events as soon as it is committed, in the order of the log."""
        self._listeners.append(listener)

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(self, *_: object) -> None: ...

    @abstractmethod
    def reading(self) -> AbstractAsyncContextManager[Connection]:
        """A connection that sees one state of the database throughout.

        Raises:
            StorageUnavailable: the database cannot be read now.
        """

    @abstractmethod
    def on_duty(self) -> AbstractAsyncContextManager[asyncio.Event]:
        """Wait until no other process is on duty, and be it. The event is set once that is no longer certain."""

    @abstractmethod
    async def make_days(self, days: Iterable[date]) -> None:
        """Make place for the attempts of *days*, where an engine keeps them by the day."""

    @abstractmethod
    async def turn_days(self, *, before: datetime) -> datetime:
        """Let go of the days of attempts that were over before *before*, where an engine keeps them so, and make place
        for those to come. Answers from before when the others are to go row by row."""

    async def write(self, work: Work[T], *, durable: bool = True, can_wait: bool = False) -> T:
        """Run *work* in a transaction of its own and commit it.

        *work* may run in another thread, and more than once where others got in its way: it may use its transaction
        and plain values, awaits nothing but its statements, and changes nothing else. It runs to its end even if the
        caller is cancelled, so that nobody who gives up leaves a transaction open.
        With *durable* it is on disk on return; else a power failure may take it back (never a killed gateway), so
        that is for what can be derived again. With *can_wait* it goes behind those for which somebody waits.

        Raises:
            StorageUnavailable: nothing was written, or, if the commit itself failed, perhaps all.
        """
        return await self._to_its_end(self._write(work, durable=durable, can_wait=can_wait))

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    @abstractmethod
    async def _write(self, work: Work[T], *, durable: bool, can_wait: bool) -> T:
        """`write`, for a caller that stays."""

    async def _admit(self, connection: Connection) -> bool:
        """See that it may be used, and fit the seal, see `prepare`: in the transaction that opens the database, once
        that is of the newest version."""
        if self._whole:
            await refuse_half(connection)
        return self._checks_seal and await prepare(connection, self.seal)

    def _announce(self, appended: list[LoggedEvent]) -> None:
        if not appended:
            return
        page = Page(after=Cursor(appended[0].cursor - 1), events=tuple(appended))
        for listener in self._listeners:
            try:
                listener(page)
            except Exception:  # it is committed, whatever one who hears of it makes of that
                _logger.exception("storage.listener_failed", cursor=page.last)

    async def _settled(self, patience_seconds: float | None = None) -> None:
        """Wait for the writes under way; those that take longer are broken off."""
        if not self._under_way:
            return
        _, late = await asyncio.wait(self._under_way, timeout=patience_seconds)
        if late:
            _logger.warning("storage.broken_off", writes=len(late))
            for task in late:
                task.cancel()
            await asyncio.wait(late)


def unavailable(what: str, error: Exception) -> StorageUnavailable:
    """What callers are told when the database cannot be *what*; logged."""
    cause = getattr(error, "orig", None) or error
    _logger.error("storage.unavailable", not_to_be=what, error=str(cause) or repr(cause))
    return StorageUnavailable(f"The database cannot be {what} now: {str(cause) or type(cause).__name__}")
