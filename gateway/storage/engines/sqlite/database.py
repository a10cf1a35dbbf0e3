"""One SQLite file as a `Database`: a writer in a thread of its own, a few readers beside it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Self, TypeVar

from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.errors import StorageUnavailable
from gateway.events import LoggedEvent
from gateway.storage import migrations
from gateway.storage.database import Database, Transaction, Work, unavailable
from gateway.storage.engines.sqlite import file
from gateway.storage.engines.sqlite.driver import InPlace, InThread
from gateway.storage.engines.sqlite.own_loop import OwnLoop
from gateway.storage.sealing import PLAIN, Seal
from gateway.times import Clock
from gateway.times import now as system_clock

T = TypeVar("T")


class SqliteDatabase(Database):
    """Held by this process alone. Writes take turns, in the order in which they came."""

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
        self._writing = asyncio.Lock()
        self._durable = True

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            try:
                stack.enter_context(file.lock_file(self._path))
            except OSError as error:
                raise StorageUnavailable(f"{self._path} cannot be opened: {error.strerror}") from error
            self._own = await stack.enter_async_context(OwnLoop("sqlite-writer"))
            self._writer = file.engine(self._path, writer=True, where=InPlace)
            stack.push_async_callback(lambda: self._own.run(self._writer.dispose()))
            self._readers = file.engine(self._path, writer=False, where=InThread)
            stack.push_async_callback(self._readers.dispose)
            try:
                await self._own.run(self._prepare())
            except DBAPIError as error:
                raise unavailable("opened", error) from error
            checkpoints = asyncio.create_task(file.Checkpoints(self._path, self._writing).run(), name="checkpoints")
            stack.push_async_callback(_ended, checkpoints)
            stack.push_async_callback(self._settled)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._readers.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise unavailable("read", error) from error

    @asynccontextmanager
    async def on_duty(self) -> AsyncIterator[asyncio.Event]:
        """At once and for good: the file lock has seen to it."""
        yield asyncio.Event()

    async def make_days(self, days: Iterable[date]) -> None:
        """There is one table."""

    async def turn_days(self, *, before: datetime) -> datetime:
        return before

    async def _write(self, work: Work[T], *, durable: bool) -> T:
        async with self._writing:
            appended, result = await self._own.run(self._transact(work, durable=durable))
            self._announce(appended)
            return result

    async def _transact(self, work: Work[T], *, durable: bool) -> tuple[list[LoggedEvent], T]:
        """In the writer's thread, so that its statements wait for nobody and nobody for them."""
        try:
            async with self._writer.connect() as connection:
                if durable is not self._durable:
                    await file.set_durable(connection, durable)
                    self._durable = durable
                async with connection.begin():
                    transaction = Transaction(connection, self.seal)
                    result = await work(transaction)
        except DBAPIError as error:
            raise unavailable("written to", error) from error
        if transaction.appended and not durable:
            # Readers are about to have these places: a power failure must not let them be given out again.
            try:
                self._sync(self._path)
            except OSError as error:
                raise unavailable("written to", error) from error
        return transaction.appended, result

    async def _prepare(self) -> None:
        async with self._writer.begin() as connection:
            await connection.run_sync(migrations.upgrade)
            was_sealed = await self._admit(connection)
        if was_sealed:
            await file.empty_wal(self._writer)


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
