"""PostgreSQL as the target of a copy: rows come in by COPY, each batch in one commit with how far it brings its table.

Over a connection of its own, past the stores: what is copied is kept as it was, byte for byte.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec
from sqlalchemy import Table

from gateway.storage.engines.postgres.server import connect, terminate
from gateway.storage.engines.postgres.sessions import is_served
from gateway.storage.moves import Move, Progress
from gateway.storage.tables import log, metadata, moves

BATCH_SECONDS = 300
_SESSION = {
    "application_name": "arrw-gateway copy",
    "statement_timeout": "0",  # counting a large table takes as long as it takes
    "synchronous_commit": "off",  # a batch that a crash takes back goes with its progress
}
_MADE_BY_MIGRATIONS = {"log", "cursors"}
"""Tables that have a row in a database that is new."""


class NotEmpty(Exception):
    """The target is no place for a copy; in words for a person."""


class DoesNotFit(Exception):
    """PostgreSQL does not take a row as it is; in words for a person."""


class PostgresTarget:
    """A database that rows are copied into, migrated once it was found to be `free`."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def move(self) -> Move | None:
        row = await self._connection.fetchrow("SELECT token, is_source, other, is_whole, progress FROM moves")
        if row is None:
            return None
        progress = msgspec.json.decode(row["progress"], type=dict[str, Progress])
        return Move(**{**row, "progress": progress})

    async def free(self) -> None:
        """See that a copy may go into it, or has: before anything is made in it, tables and all.

        Raises:
            NotEmpty: there is something of a gateway in it, or one is at work on it.
        """
        if await self._has(moves.name) and await self.move() is not None:
            return
        if await is_served(self._connection):
            raise NotEmpty("a gateway is at work on it: stop that first")
        await self._refuse_rows()

    async def begin(self, move: Move) -> None:
        """Take it for *move*, with nothing copied yet.

        Raises:
            NotEmpty: as above.
        """
        if await is_served(self._connection):
            raise NotEmpty("a gateway is at work on it: stop that first")
        async with self._connection.transaction():
            await self._connection.execute("LOCK TABLE moves IN EXCLUSIVE MODE")
            if await self.move() is not None:
                raise NotEmpty("another copy into it has just begun")
            await self._refuse_rows()
            await self._keep(move)

    async def store(self, table: Table, rows: Sequence[tuple[Any, ...]], move: Move) -> None:
        """*rows*, in one commit with *move*, which says that they are there.

        The first of a table replace what is there: what migrations have put there, and counts that triggers kept while
        what they count was copied.

        Raises:
            DoesNotFit: nothing was stored.
        """
        async with self._connection.transaction():
            if move.progress[table.name].rows == len(rows):
                await self._connection.execute(f'DELETE FROM "{table.name}"', timeout=BATCH_SECONDS)  # noqa: S608 - our own name
            if rows:
                columns = [column.name for column in table.c]
                try:
                    await self._connection.copy_records_to_table(
                        table.name, records=rows, columns=columns, timeout=BATCH_SECONDS
                    )
                except (
                    ValueError,
                    OverflowError,
                    asyncpg.DataError,
                    asyncpg.IntegrityConstraintViolationError,
                ) as error:
                    raise DoesNotFit(f"a row of {table.name}: {error}") from error
            if move.progress[table.name].is_done:
                await self._go_on_numbering(table)
            await self._keep(move)

    async def counts(self) -> Mapping[str, int]:
        """How many rows each table has."""
        return {
            name: await self._connection.fetchval(f'SELECT count(*) FROM "{name}"')  # noqa: S608 - our own names
            for name in metadata.tables
            if name != moves.name
        }

    async def finish(self, move: Move) -> None:
        """Let it be served: on disk on return, with all that came before."""
        await self._connection.execute("ANALYZE")
        async with self._connection.transaction():
            await self._connection.execute("SET LOCAL synchronous_commit = on")
            await self._keep(move)

    async def _refuse_rows(self) -> None:
        for name in metadata.tables:
            if name in _MADE_BY_MIGRATIONS or not await self._has(name):
                continue
            if await self._connection.fetchval(f'SELECT EXISTS (SELECT FROM "{name}")'):  # noqa: S608 - our own names
                raise NotEmpty(f"there is something in its table {name}: copy into a new database")
        if await self._has(log.name) and await self._connection.fetchval(f"SELECT head FROM {log.name}"):  # noqa: S608 - as above
            raise NotEmpty("there are events in its log: copy into a new database")

    async def _has(self, table: str) -> bool:
        found: bool = await self._connection.fetchval("SELECT to_regclass(quote_ident($1)) IS NOT NULL", table)
        return found

    async def _go_on_numbering(self, table: Table) -> None:
        """Numbers that the database gives out go on after those that were copied."""
        for column in table.primary_key:
            sequence = await self._connection.fetchval(
                "SELECT pg_get_serial_sequence(quote_ident($1), $2)", table.name, column.name
            )
            if sequence is not None:
                await self._connection.execute(
                    f'SELECT setval($1::regclass, max("{column.name}")) FROM "{table.name}"',  # noqa: S608 - our own names
                    sequence,
                )

    async def _keep(self, move: Move) -> None:
        await self._connection.execute(
            _KEEP, move.token, move.is_source, move.other, move.is_whole, msgspec.json.encode(move.progress)
        )


@asynccontextmanager
async def target(url: str) -> AsyncIterator[PostgresTarget]:
    """Raises: see `server.connect`."""
    connection = await connect(url, _SESSION)
    try:
        yield PostgresTarget(connection)
    finally:
        terminate(connection)


_KEEP = """
    INSERT INTO moves (one, token, is_source, other, is_whole, progress) VALUES (1, $1, $2, $3, $4, $5)
    ON CONFLICT (one) DO UPDATE SET (token, is_source, other, is_whole, progress)
        = (excluded.token, excluded.is_source, excluded.other, excluded.is_whole, excluded.progress)
"""
