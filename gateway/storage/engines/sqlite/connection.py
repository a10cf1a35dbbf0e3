"""A transaction with SQLite, as the stores use it: each statement is one step, taken wherever `run` takes it."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Dialect, Executable

from gateway.storage.connection import Parameters
from gateway.storage.engines.sqlite.statements import DIALECT, Statements
from gateway.storage.engines.sqlite.steps import Runs

_NOTHING: Mapping[str, Any] = {}


class SqliteRows:
    """`gateway.storage.connection.Rows`, all of them in memory."""

    def __init__(self, rows: Sequence[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> Sequence[Any]:
        return self._rows

    def one(self) -> Any:  # noqa: ANN401 - a row
        """Raises:
        LookupError: there is none, or there are several.
        """
        if len(self._rows) != 1:
            raise LookupError(f"{len(self._rows)} rows where there is to be one")
        return self._rows[0]

    def one_or_none(self) -> Any:  # noqa: ANN401
        return self.one() if self._rows else None

    def scalar_one(self) -> Any:  # noqa: ANN401
        return self.one()[0]

    def scalars(self) -> "SqliteRows":
        return SqliteRows([row[0] for row in self._rows], self.rowcount)


class SqliteConnection:
    """`gateway.storage.connection.Connection` over sqlite3's own.

    The transaction is begun by *begin* together with the first statement, and ended by whoever made this.
    """

    def __init__(self, raw: sqlite3.Connection, statements: Statements, run: Runs, *, begin: str | None) -> None:
        self._raw = raw
        self._statements = statements
        self._run = run
        self._begin = begin

    @property
    def dialect(self) -> Dialect:
        return DIALECT

    async def execute(self, statement: Executable, parameters: Parameters | None = None) -> SqliteRows:
        """Raises:
        sqlite3.Error
        """
        if parameters is not None and not isinstance(parameters, Mapping):
            return await self._execute_many(statement, parameters)
        given = parameters or _NOTHING
        prepared, constants = self._statements.prepared(statement, tuple(given))
        sql, values = prepared.bind({**constants, **given} if given else constants)

        self._statements.tell(sql, values)

        def step() -> tuple[Sequence[Any], Any, int]:
            self._ensure_begun()
            cursor = self._raw.execute(sql, values)
            found = cursor.fetchall() if cursor.description else ()
            return found, cursor.description, cursor.rowcount

        found, description, rowcount = await self._run(step)
        return SqliteRows(prepared.read(found, description) if found else (), rowcount)

    async def scalar(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401
        rows = (await self.execute(statement, parameters)).all()
        return rows[0][0] if rows else None

    async def _execute_many(self, statement: Executable, parameters: Sequence[Mapping[str, Any]]) -> SqliteRows:
        if not parameters:
            return await self.execute(statement)
        prepared, constants = self._statements.prepared(statement, tuple(parameters[0]))
        sql, values = prepared.bind_many({**constants, **each} for each in parameters)

        self._statements.tell(sql, values[0])

        def step() -> int:
            self._ensure_begun()
            return self._raw.executemany(sql, values).rowcount

        return SqliteRows((), await self._run(step))

    def _ensure_begun(self) -> None:
        if self._begin is not None:
            self._raw.execute(self._begin)
            self._begin = None
