"""Connections that can only read, each in a thread of its own: a long look back holds up nobody."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.errors import StorageUnavailable
from gateway.storage.engines.sqlite import file
from gateway.storage.engines.sqlite.connection import SqliteConnection
from gateway.storage.engines.sqlite.steps import InThread
from gateway.storage.engines.statements import Statements

READERS = 4
PATIENCE_SECONDS = 30.0


class Readers:
    """A few of them, opened as they are needed, the last used first: it has in memory what was read."""

    def __init__(self, database: Path, statements: Statements) -> None:
        self._database = database
        self._statements = statements
        self._free: asyncio.LifoQueue[_Reader] = asyncio.LifoQueue()
        self._all = [_Reader(number) for number in range(READERS)]
        for reader in reversed(self._all):
            self._free.put_nowait(reader)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[SqliteConnection]:
        """A connection that sees one state of the database throughout: that at its first statement.

        Raises:
            StorageUnavailable: all of them have been busy for long.
        """
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                reader = await self._free.get()
        except TimeoutError as error:
            raise StorageUnavailable("The database is busy with other readers") from error
        try:
            if (raw := reader.raw) is None:
                raw = await reader.thread(lambda: reader.open(self._database))
            yield SqliteConnection(raw, self._statements, reader.thread, begin="BEGIN")
        finally:
            # Nobody waits for its end: whatever is asked of this reader next comes after it.
            reader.thread.soon(reader.end)
            self._free.put_nowait(reader)

    async def close(self) -> None:
        for reader in self._all:
            reader.thread.soon(reader.close)
            await asyncio.to_thread(reader.thread.end)


class _Reader:
    def __init__(self, number: int) -> None:
        self.thread = InThread(f"sqlite-reader-{number}")
        self.raw: sqlite3.Connection | None = None

    def open(self, database: Path) -> sqlite3.Connection:
        self.raw = self.raw or file.opened(database, writer=False)
        return self.raw

    def end(self) -> None:
        if self.raw is not None and self.raw.in_transaction:
            self.raw.execute("COMMIT")

    def close(self) -> None:
        if self.raw is not None:
            self.raw.close()
