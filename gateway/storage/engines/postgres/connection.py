"""A transaction with PostgreSQL, as the stores use it: each statement is one trip to the server."""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
from sqlalchemy import Dialect, Executable
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from gateway.storage.connection import Parameters
from gateway.storage.engines.found import Found
from gateway.storage.engines.postgres.arrays import at_once
from gateway.storage.engines.statements import Statements

DIALECT = PGDialect_asyncpg(dbapi=PGDialect_asyncpg.import_dbapi())  # type: ignore[no-untyped-call] # SQLAlchemy's own
FLOATS = 701
"""What PostgreSQL calls the type of floating-point numbers."""
_NOTHING: Mapping[str, Any] = {}


class PostgresConnection:
    """`gateway.storage.connection.Connection` over asyncpg's own.

    The transaction is begun by *begin* before the first statement, and ended by whoever made this.
    """

    def __init__(self, raw: asyncpg.Connection, statements: Statements, *, begin: str | None) -> None:
        self._raw = raw
        self._statements = statements
        self._begin = begin

    @property
    def dialect(self) -> Dialect:
        return DIALECT

    async def execute(self, statement: Executable, parameters: Parameters | None = None) -> Found:
        """Raises: see `server.FAULTS`."""
        if parameters is not None and not isinstance(parameters, Mapping):
            return await self._execute_many(statement, parameters)
        given = parameters or _NOTHING
        prepared, constants = self._statements.prepared(statement, tuple(given))
        sql, values = prepared.bind({**constants, **given} if given else constants)
        await self._ensure_begun()
        self._statements.tell(sql, values)
        if prepared.only_changes:
            return _changed(await self._raw.execute(sql, *values))
        found = await self._raw.fetch(sql, *values)
        return Found(prepared.read(found, found[0].keys) if found else (), len(found))

    async def scalar(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401
        rows = (await self.execute(statement, parameters)).all()
        return rows[0][0] if rows else None

    async def _execute_many(self, statement: Executable, parameters: Sequence[Mapping[str, Any]]) -> Found:
        if not parameters:
            return await self.execute(statement)
        prepared, constants = self._statements.prepared(statement, tuple(parameters[0]))
        sql, rows = prepared.bind_many({**constants, **each} for each in parameters)
        await self._ensure_begun()
        if len(rows) == 1:
            self._statements.tell(sql, rows[0])
            return _changed(await self._raw.execute(sql, *rows[0]))
        if (together := at_once(sql)) is not None and together.fits(rows):
            arrays = [list(column) for column in zip(*rows, strict=True)]
            self._statements.tell(together.sql, arrays)
            return _changed(await self._raw.execute(together.sql, *arrays))
        self._statements.tell(sql, rows[0])
        await self._raw.executemany(sql, rows)
        return Found((), -1)

    async def _ensure_begun(self) -> None:
        if self._begin is not None:
            begin, self._begin = self._begin, None
            self._statements.tell(begin)
            await self._raw.execute(begin)


def _changed(status: str) -> Found:
    """By what the server says at the end of a command: `UPDATE 3`."""
    return Found((), int(status.rsplit(" ", 1)[-1]))
