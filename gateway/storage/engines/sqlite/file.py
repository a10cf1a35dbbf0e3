"""SQLite as the gateway uses it: one file, one process, one writer at a time, readers that never wait for it.

Everything that only SQLite needs is said here: pragmas, transactions, the file lock, checkpoints.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

import structlog
from sqlalchemy import Connection, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry

from gateway.storage.engines.sqlite.driver import DriverConnection, InThread, Runs, connect

_logger = structlog.get_logger(__name__)

READERS = 4
CHECKPOINT_SECONDS = 1.0
CHECKPOINT_BYTES = 4 * 2**20
"""A smaller write-ahead log is left alone."""
RESTART_BYTES = 64 * 2**20
"""A larger one is emptied with the writer held up, or readers could let it grow without end."""


class DatabaseInUse(Exception):
    """Another process has this database open."""


def lock_file(database: Path) -> IO[bytes]:
    """Hold *database* for this process, until the answer is closed or the process ends, however it ends.

    Raises:
        DatabaseInUse: another process holds it. Its words are fit for a user.
    """
    path = database.with_name(database.name + ".lock")
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise DatabaseInUse(
            f"{database} is in use by another gateway process, and SQLite serves one process only: stop the other first"
        ) from None
    return file


def engine(database: Path, *, writer: bool, where: Callable[[], Runs]) -> AsyncEngine:
    """An engine of one writing connection, or of a few that can only read. *where* says where each takes its steps."""
    made = create_async_engine(
        f"sqlite+aiosqlite:///{database}",
        async_creator=lambda *_, **__: connect(database, where()),
        poolclass=AsyncAdaptedQueuePool,
        pool_size=1 if writer else READERS,
        max_overflow=0,
        pool_timeout=30,
        hide_parameters=True,  # secrets are among them; errors and debug logs would print those that are text
    )

    def connected(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(pragma)
        if not writer:
            cursor.execute("PRAGMA query_only = ON")
        cursor.close()

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")

    event.listen(made.sync_engine, "connect", connected)
    event.listen(made.sync_engine, "begin", begun)
    return made


_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 0",  # `Checkpoints` runs them apart from the writer
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",  # what is replaced or deleted is not to be found in the file any more
    "PRAGMA busy_timeout = 5000",
    "PRAGMA cache_size = -65536",  # KiB
    "PRAGMA temp_store = MEMORY",
)


async def set_durable(connection: AsyncConnection, durable: bool) -> None:  # noqa: FBT001 - it is the value to set
    """Whether commits from now on are on disk when they return. Only between transactions."""
    await (await _driver(connection)).run(
        lambda raw: raw.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    )


async def _driver(connection: AsyncConnection) -> DriverConnection:
    """Past SQLAlchemy, which would begin a transaction around what is executed."""
    driver: Any = (await connection.get_raw_connection()).driver_connection
    return cast("DriverConnection", driver)


def sync_wal(database: Path) -> None:
    """See that whatever has been committed is on disk.

    Raises:
        OSError: it may not be.
    """
    wal = os.open(f"{database}-wal", os.O_RDONLY)
    try:
        os.fsync(wal)
    finally:
        os.close(wal)


async def empty_wal(writer: AsyncEngine) -> None:
    """Move all of the write-ahead log into the database, and cut it to nothing."""
    async with writer.connect() as connection:
        await _checkpoint(connection, "TRUNCATE")


class Checkpoints:
    """Moves the write-ahead log back into the database, beside the writer rather than in its commits."""

    def __init__(self, database: Path, writing: asyncio.Lock) -> None:
        self._wal = database.with_name(database.name + "-wal")
        self._engine = engine(database, writer=True, where=InThread)
        self._writing = writing

    async def run(self) -> None:
        try:
            while True:
                await asyncio.sleep(CHECKPOINT_SECONDS)
                try:
                    await self._look()
                except (
                    DBAPIError,
                    sqlite3.Error,
                ) as error:  # a full disk, a busy reader: the next second may do better
                    _logger.warning("checkpoint.failed", error=str(error))
        finally:
            await self._engine.dispose()

    async def _look(self) -> None:
        size = self._size()
        if size > CHECKPOINT_BYTES:
            await self._checkpoint("PASSIVE")
        if size > RESTART_BYTES:
            # Only what was written during the first pass is left to be moved while the writer waits.
            async with self._writing:
                await self._checkpoint("RESTART")

    def _size(self) -> int:
        with suppress(FileNotFoundError):
            return os.stat(self._wal).st_size  # noqa: PTH116 - called each second; no object is needed
        return 0

    async def _checkpoint(self, mode: str) -> None:
        async with self._engine.connect() as connection:
            await _checkpoint(connection, mode)


async def _checkpoint(connection: AsyncConnection, mode: str) -> None:
    await (await _driver(connection)).run(lambda raw: raw.execute(f"PRAGMA wal_checkpoint({mode})").fetchall())
