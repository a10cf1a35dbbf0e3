"""One SQLite file as a `Database`: a writer in a thread of its own, a few readers beside it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Self, TypeVar

import structlog
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from gateway.errors import StorageUnavailable
from gateway.storage import migrations
from gateway.storage.connection import Connection
from gateway.storage.database import Database, Transaction, Work, unavailable
from gateway.storage.engines.sqlite import file
from gateway.storage.engines.sqlite.checkpoints import Checkpoints
from gateway.storage.engines.sqlite.connection import DIALECT, SqliteConnection
from gateway.storage.engines.sqlite.readers import Readers
from gateway.storage.engines.sqlite.steps import InPlace, InThread, InTurns, to_its_end
from gateway.storage.engines.statements import Statements
from gateway.storage.sealing import PLAIN, Seal
from gateway.times import Clock
from gateway.times import now as system_clock

T = TypeVar("T")

_logger = structlog.get_logger(__name__)

_IN_PLACE = InPlace()

MANY_ROWS = 50
"""A commit that is not durable and changed so many is brought to disk by itself, or the next durable one, of somebody
who waits, would have to bring all of it along."""


class SqliteDatabase(Database):
    """Held by this process alone. Writes take turns, in the order in which they came; those that can wait come last."""

    def __init__(
        self,
        url: str,
        *,
        clock: Clock = system_clock,
        seal: Seal | None = PLAIN,
        whole: bool = True,
        sync: Callable[[Path], None] = file.sync_wal,
    ) -> None:
        super().__init__(clock=clock, seal=seal, whole=whole)
        self._sync = sync
        self._path = path_of(url)
        self.statements = Statements(DIALECT)
        self._durable = True

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            try:
                stack.enter_context(file.lock_file(self._path))
            except OSError as error:
                raise StorageUnavailable(f"{self._path} cannot be opened: {error.strerror}") from error
            self._loop = asyncio.get_running_loop()
            self._thread = InTurns("sqlite-writer")
            stack.callback(self._thread.end)
            self._flusher = InThread("sqlite-flusher")
            try:
                self._writer = await self._thread(lambda: to_its_end(self._open()))
            except (sqlite3.Error, DBAPIError) as error:
                raise unavailable("opened", error) from error
            stack.callback(self._thread.soon, self._writer.close)
            stack.callback(self._flusher.end)
            self._readers = Readers(self._path, self.statements)
            stack.push_async_callback(self._readers.close)
            checkpoints = asyncio.create_task(Checkpoints(self._path, self._thread).run(), name="checkpoints")
            stack.push_async_callback(_ended, checkpoints)
            stack.push_async_callback(self._settled)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        try:
            async with self._readers.one() as connection:
                yield connection
        except sqlite3.Error as error:
            raise unavailable("read", error) from error

    @asynccontextmanager
    async def on_duty(self) -> AsyncIterator[asyncio.Event]:
        """At once and for good: the file lock has seen to it."""
        yield asyncio.Event()

    async def make_days(self, days: Iterable[date]) -> None:
        """There is one table."""

    async def turn_days(self, *, before: datetime) -> datetime:
        return before

    async def _write(self, work: Work[T], *, durable: bool, can_wait: bool) -> T:
        return await self._thread.turn(lambda: to_its_end(self._transact(work, durable=durable)), can_wait=can_wait)

    async def _transact(self, work: Work[T], *, durable: bool) -> T:
        """In the writer's thread, so that its statements wait for nobody and nobody for them."""
        try:
            if durable is not self._durable:
                file.set_durable(self._writer, durable)
                self._durable = durable
            changes = self._writer.total_changes
            async with self._transaction() as connection:
                transaction = Transaction(connection, self.seal)
                result = await work(transaction)
        except sqlite3.Error as error:
            raise unavailable("written to", error) from error
        if not (durable or transaction.appended) and self._writer.total_changes - changes >= MANY_ROWS:
            self._flusher.soon(self._flush)
        if transaction.appended and not durable:
            # Readers are about to have these places: a power failure must not let them be given out again.
            try:
                self._sync(self._path)
            except OSError as error:
                raise unavailable("written to", error) from error
        if transaction.appended:
            # From here, and not by whoever waits for the result: so pages come in their order, each before its result.
            self._loop.call_soon_threadsafe(self._announce, transaction.appended)
        return result

    def _flush(self) -> None:
        try:
            self._sync(self._path)
        except OSError as error:  # nobody was promised it; the next durable commit meets the same disk, and says so
            _logger.warning("flush.failed", error=str(error))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[SqliteConnection]:
        writer = self._writer
        writer.execute("BEGIN IMMEDIATE")
        try:
            yield SqliteConnection(writer, self.statements, _IN_PLACE, begin=None)
            writer.execute("COMMIT")
        except BaseException:
            if writer.in_transaction:  # some errors end it by themselves
                writer.execute("ROLLBACK")
            raise

    async def _open(self) -> sqlite3.Connection:
        writer = file.opened(self._path, writer=True)
        try:
            with file.as_alchemy(writer) as transaction:
                migrations.upgrade(transaction)
                was_sealed = await self._admit(SqliteConnection(writer, self.statements, _IN_PLACE, begin=None))
            if was_sealed:
                file.empty_wal(writer)
        except BaseException:
            writer.close()
            raise
        return writer


def path_of(url: str) -> Path:
    """Raises:
    ValueError: *url* is no file that can be used, in words that say what is wrong with it.
    """
    try:
        parsed = make_url(url)
    except SQLAlchemyError as error:
        raise ValueError("not a database URL; expected sqlite:///path/to/file.db") from error
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise ValueError("expected sqlite:///path/to/file.db")
    return Path(parsed.database).absolute()


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
