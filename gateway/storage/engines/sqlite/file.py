"""SQLite as the gateway uses it: one file, one process, one writer at a time, readers that never wait for it.

Everything that only SQLite needs is said here: pragmas, transactions, the file lock, checkpoints.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import structlog
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import StaticPool

_logger = structlog.get_logger(__name__)

WRITERS_CACHE_KIB = 8 * 2**10
READERS_CACHE_KIB = 4 * 2**10
"""Each connection fills its own, in time. What is in none of them the system has: larger ones were not faster."""
STATEMENTS_KEPT = 500
"""Prepared by each connection."""


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


def opened(database: Path, *, writer: bool) -> sqlite3.Connection:
    """A connection that writes, or one that can only read. Transactions are begun by statements.

    Raises:
        sqlite3.Error: the file cannot be opened, or is no database.
    """
    connection = sqlite3.connect(
        database, check_same_thread=False, isolation_level=None, cached_statements=STATEMENTS_KEPT
    )
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        connection.execute(f"PRAGMA cache_size = -{WRITERS_CACHE_KIB if writer else READERS_CACHE_KIB}")
        if not writer:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def as_alchemy(connection: sqlite3.Connection) -> Iterator[Connection]:
    """A transaction on *connection* by way of SQLAlchemy, which migrations need."""
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool, hide_parameters=True)
    event.listen(engine, "begin", lambda begun: begun.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.begin() as made:
        yield made


_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 0",  # `Checkpoints` runs them apart from the writer
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",  # what is replaced or deleted is not to be found in the file any more
    "PRAGMA busy_timeout = 5000",
    "PRAGMA temp_store = MEMORY",
)


def set_durable(connection: sqlite3.Connection, durable: bool) -> None:  # noqa: FBT001 - it is the value to set
    """Whether commits from now on are on disk when they return. Only between transactions."""
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")


_sync = getattr(os, "fdatasync", os.fsync)
"""When the file was changed need not be on disk, where the system can tell the two apart."""


def sync_wal(database: Path) -> None:
    """See that whatever has been committed is on disk.

    Raises:
        OSError: it may not be.
    """
    wal = os.open(f"{database}-wal", os.O_RDONLY)
    try:
        _sync(wal)
    finally:
        os.close(wal)


def empty_wal(connection: sqlite3.Connection) -> None:
    """Move all of the write-ahead log into the database, and cut it to nothing."""
    checkpoint(connection, "TRUNCATE")


def checkpoint(connection: sqlite3.Connection, mode: str) -> None:
    """Move the write-ahead log into the database."""
    connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
