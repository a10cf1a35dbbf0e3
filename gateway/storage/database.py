"""The database as the stores see it: reads of one state, writes one at a time, and who hears of commits."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

import structlog
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.errors import StorageUnavailable
from gateway.events import Cursor, LoggedEvent, Page
from gateway.storage import migrations, sqlite
from gateway.storage.driver import InPlace, InThread
from gateway.storage.own_loop import OwnLoop
from gateway.storage.sealing import PLAIN, Seal, prepare
from gateway.times import Clock
from gateway.times import now as system_clock

T = TypeVar("T")
_logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Transaction:
    """A write in progress. What is put into `appended` is announced once it is committed."""

    connection: AsyncConnection
    seal: Seal
    appended: list[LoggedEvent] = field(default_factory=list)


class Database:
    """One SQLite file. `async with Database(url)` opens it, migrated and held by this process alone.

    *seal* has to fit what is in it; None is for who neither reads nor writes anything sealed.
    """

    def __init__(self, url: str, *, clock: Clock = system_clock, seal: Seal | None = PLAIN) -> None:
        self.clock = clock
        self.seal = seal or PLAIN
        self._checks_seal = seal is not None
        self._path = _path_of(url)
        self._writing = asyncio.Lock()
        self._durable = True
        self._listeners: list[Callable[[Page], None]] = []
        self._under_way: set[asyncio.Task[object]] = set()

    def on_commit(self, listener: Callable[[Page], None]) -> None:
        """Call *listener* with each page of events as soon as it is committed, in the order of the log."""
        self._listeners.append(listener)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            try:
                stack.enter_context(sqlite.lock_file(self._path))
            except OSError as error:
                raise StorageUnavailable(f"{self._path} cannot be opened: {error.strerror}") from error
            self._own = await stack.enter_async_context(OwnLoop("sqlite-writer"))
            self._writer = sqlite.engine(self._path, writer=True, where=InPlace)
            stack.push_async_callback(lambda: self._own.run(self._writer.dispose()))
            self._readers = sqlite.engine(self._path, writer=False, where=InThread)
            stack.push_async_callback(self._readers.dispose)
            try:
                await self._own.run(self._prepare())
            except DBAPIError as error:
                raise _unavailable("opened", error) from error
            checkpoints = asyncio.create_task(sqlite.Checkpoints(self._path, self._writing).run(), name="checkpoints")
            stack.push_async_callback(_ended, checkpoints)
            stack.push_async_callback(self._settled)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection that sees one state of the database throughout.

        Raises:
            StorageUnavailable: the database cannot be read now.
        """
        try:
            async with self._readers.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise _unavailable("read", error) from error

    async def write(self, work: Callable[[Transaction], Awaitable[T]], *, durable: bool = True) -> T:
        """Run *work* in a transaction of its own, after those that came before, and commit it.

        *work* runs in the writer's thread: it may use its transaction and plain values, and nothing of this loop. It
        runs to its end even if the caller is cancelled, so that nobody who gives up leaves a transaction open.
        With *durable* it is on disk on return; else a power failure may take it back (never a killed process), so
        that is for what can be derived again.

        Raises:
            StorageUnavailable: nothing was written, or, if the commit itself failed, perhaps all.
        """
        task = asyncio.create_task(self._write(work, durable=durable))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _write(self, work: Callable[[Transaction], Awaitable[T]], *, durable: bool) -> T:
        async with self._writing:
            appended, result = await self._own.run(self._transact(work, durable=durable))
            self._announce(appended)
            return result

    async def _transact(
        self, work: Callable[[Transaction], Awaitable[T]], *, durable: bool
    ) -> tuple[list[LoggedEvent], T]:
        """In the writer's thread, so that its statements wait for nobody and nobody for them."""
        try:
            async with self._writer.connect() as connection:
                if durable is not self._durable:
                    await sqlite.set_durable(connection, durable)
                    self._durable = durable
                async with connection.begin():
                    transaction = Transaction(connection, self.seal)
                    result = await work(transaction)
        except DBAPIError as error:
            raise _unavailable("written to", error) from error
        return transaction.appended, result

    async def _prepare(self) -> None:
        async with self._writer.begin() as connection:
            await connection.run_sync(migrations.upgrade)
            was_sealed = self._checks_seal and await prepare(connection, self.seal)
        if was_sealed:
            await sqlite.empty_wal(self._writer)

    def _announce(self, appended: list[LoggedEvent]) -> None:
        if not appended:
            return
        page = Page(after=Cursor(appended[0].cursor - 1), events=tuple(appended))
        for listener in self._listeners:
            try:
                listener(page)
            except Exception:  # it is committed, whatever one who hears of it makes of that
                _logger.exception("storage.listener_failed", cursor=page.last)

    async def _settled(self) -> None:
        if self._under_way:
            await asyncio.wait(self._under_way)


def _path_of(url: str) -> Path:
    """Raises:
    ValueError: *url* is no database that can be used, in words that say what is wrong with it.
    """
    try:
        parsed = make_url(url)
    except SQLAlchemyError as error:
        raise ValueError("not a database URL; expected sqlite:///path/to/file.db") from error
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise ValueError("expected sqlite:///path/to/file.db")
    return Path(parsed.database).absolute()


def _unavailable(what: str, error: DBAPIError) -> StorageUnavailable:
    _logger.error("storage.unavailable", not_to_be=what, error=str(error.orig))
    return StorageUnavailable(f"The database cannot be {what} now: {error.orig}")


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
