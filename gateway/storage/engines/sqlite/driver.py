"""sqlite3 as SQLAlchemy's async dialect wants it: a statement is one step, taken wherever `run` takes it.

    a reader:  loop ──step──▶ a thread of its own ──rows──▶ loop        one trip a statement
    the writer runs whole transactions in a thread with a loop of its own (`own_loop`), and takes its steps in place

aiosqlite takes four trips a statement (cursor, execute, fetch, close). Each waits for the interpreter's lock twice, so
that beside a busy loop a publish of a dozen statements took 90 ms; taken as one trip it takes 10.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

T = TypeVar("T")


class Runs(Protocol):
    """Where a connection's steps are taken: one after the other, in the order in which they were asked for."""

    def __call__(self, step: Callable[[], T], /) -> Awaitable[T]: ...

    def end(self) -> None:
        """No more steps."""


class InPlace:
    """In the thread that asks, which waits."""

    async def __call__(self, step: Callable[[], T], /) -> T:
        return step()

    def end(self) -> None:
        pass


class InThread:
    """In a thread of its own."""

    def __init__(self) -> None:
        self._thread: Executor = ThreadPoolExecutor(1, thread_name_prefix="sqlite-reader")

    def __call__(self, step: Callable[[], T], /) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, step)

    def end(self) -> None:
        self._thread.shutdown(wait=False)


class Cursor:
    """As much of an asynchronous DBAPI cursor as the dialect uses. Rows are fetched in the step that asks for them."""

    def __init__(self, raw: sqlite3.Cursor, run: Runs) -> None:
        self._raw = raw
        self._run = run
        self._rows: Sequence[Any] = ()

    async def __aenter__(self) -> Self:
        return self

    @property
    def description(self) -> Any:  # noqa: ANN401 - sqlite3's own
        return self._raw.description

    @property
    def rowcount(self) -> int:
        return self._raw.rowcount

    @property
    def lastrowid(self) -> int | None:
        return self._raw.lastrowid

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        def step() -> Sequence[Any]:
            self._raw.execute(statement, parameters)
            return self._raw.fetchall() if self._raw.description else ()

        self._rows = await self._run(step)

    async def executemany(self, statement: str, parameters: Iterable[Sequence[Any]]) -> None:
        await self._run(lambda: self._raw.executemany(statement, parameters))

    async def fetchall(self) -> Sequence[Any]:
        rows, self._rows = self._rows, ()
        return rows

    async def close(self) -> None:
        """Nothing is left open: all rows have been fetched, which ends a statement."""


class DriverConnection:
    """As much of an asynchronous DBAPI connection as the dialect uses. Transactions are begun by statements."""

    def __init__(self, raw: sqlite3.Connection, run: Runs) -> None:
        self._connection = raw  # under this name the dialect looks whether it is open
        self._run = run

    def cursor(self) -> Cursor:
        return Cursor(self._connection.cursor(), self._run)

    async def run(self, step: Callable[[sqlite3.Connection], T]) -> T:
        """*step* with sqlite3's own connection, past SQLAlchemy."""
        return await self._run(lambda: step(self._connection))

    async def create_function(
        self, name: str, arguments: int, function: Callable[..., Any], *, deterministic: bool = False
    ) -> None:
        await self.run(lambda raw: raw.create_function(name, arguments, function, deterministic=deterministic))

    async def commit(self) -> None:
        await self._run(self._connection.commit)

    async def rollback(self) -> None:
        await self._run(self._connection.rollback)

    async def close(self) -> None:
        await self._run(self._connection.close)
        self._run.end()

    def stop(self) -> None:
        """Close it without waiting."""
        self._connection.close()
        self._run.end()


async def connect(path: Path, run: Runs) -> DriverConnection:
    """Raises:
    sqlite3.Error: it cannot be opened.
    """
    raw = await run(lambda: sqlite3.connect(path, check_same_thread=False, isolation_level=None))
    return DriverConnection(raw, run)
