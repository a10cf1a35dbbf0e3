"""A transaction with SQLite, as the stores use it: each statement is one step, taken wherever `run` takes it."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Dialect, Executable
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from gateway.storage.connection import Parameters
from gateway.storage.engines.found import Found
from gateway.storage.engines.sqlite.rows import some_at_a_time
from gateway.storage.engines.sqlite.steps import Runs
from gateway.storage.engines.statements import Statements

DIALECT = SQLiteDialect_pysqlite()
_NOTHING: Mapping[str, Any] = {}


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

    async def execute(self, statement: Executable, parameters: Parameters | None = None) -> Found:
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
        return Found(prepared.read(found, lambda: [column[0] for column in description]) if found else (), rowcount)

    async def scalar(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401
        rows = (await self.execute(statement, parameters)).all()
        return rows[0][0] if rows else None

    async def _execute_many(self, statement: Executable, parameters: Sequence[Mapping[str, Any]]) -> Found:
        if not parameters:
            return await self.execute(statement)
        prepared, constants = self._statements.prepared(statement, tuple(parameters[0]))
        sql, values = prepared.bind_many({**constants, **each} for each in parameters)
        portions = some_at_a_time(sql, values)

        self._statements.tell(sql, values[0])

        def step() -> int:
            self._ensure_begun()
            if portions is None:
                return self._raw.executemany(sql, values).rowcount
            return sum(self._raw.execute(some, of_them).rowcount for some, of_them in portions)

        return Found((), await self._run(step))

    def _ensure_begun(self) -> None:
        if self._begin is not None:
            self._raw.execute(self._begin)
            self._begin = None
