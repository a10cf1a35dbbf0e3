"""Copy a SQLite database to PostgreSQL, table by table, in batches by primary key; cut short, it goes on where it was.

    source: held by its file lock, marked as leaving ── batch by batch ──▶ target: rows and progress, one commit

Rows are copied as the database keeps them: what is sealed stays sealed, and JSON keeps its bytes.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Select, String, Table, bindparam, func, select, tuple_, type_coerce
from sqlalchemy.types import LargeBinary, TypeDecorator, TypeEngine

from gateway.storage.connection import Connection
from gateway.storage.database import Database, Transaction
from gateway.storage.engines import database_of, without_password
from gateway.storage.engines.postgres.copying import DoesNotFit, NotEmpty, PostgresTarget, target
from gateway.storage.engines.postgres.server import FAULTS
from gateway.storage.engines.postgres.url import POSTGRES, check_url
from gateway.storage.engines.sqlite.database import path_of
from gateway.storage.moves import Key, Move, Progress, forget_move, keep_move, move_of
from gateway.storage.rows import within
from gateway.storage.tables import attempts, delivery_counts, metadata, moves

ROWS_AT_ONCE = 5_000
BYTES_AT_ONCE = 4 * 2**20
MOST_DAYS = 400
ROW_BYTES = 100
"""What a row takes beside its text and bytes."""


class MoveRefused(Exception):
    """It cannot be copied so; in words for a person. Nothing that was there has changed."""


class CopyCutShort(Exception):
    """It has not come to its end; in words for a person. Run again, it goes on."""


class Report(Protocol):
    """Who is told how a copy goes."""

    def begins(self, rows: Mapping[str, int], there: Mapping[str, int]) -> None:
        """How many rows each table has, and how many of them are there from a run before."""

    def copied(self, table: str, rows: int) -> None:
        """So many more of this table are there."""

    def verifies(self) -> None:
        """All are there; now they are counted."""


def tables_to_copy() -> Sequence[Table]:
    """All there are, less what is about the copy itself. What triggers keep comes last, and replaces what they made of
    the rows that were copied before."""
    everything = [table for table in metadata.tables.values() if table is not moves]
    return sorted(everything, key=lambda table: table is delivery_counts)


async def copy(source_url: str, target_url: str, report: Report) -> bool:
    """Copy everything; False: it had been done before.

    Raises:
        MoveRefused: this cannot be copied there.
        CopyCutShort: the connection broke, or the like.
        DatabaseInUse, StorageUnavailable: one of the two cannot be opened.
    """
    _check(source_url, target_url)
    async with database_of(source_url, seal=None, whole=False) as source:
        try:
            async with target(target_url) as into:
                await into.free()
                async with database_of(target_url, seal=None, whole=False) as migrated:
                    await migrated.make_days(await _days(source))
                begun = await _begin(source, into, source_url, target_url)
                if begun.is_whole:
                    return False
                there = await _Copying(source, into, report).run(begun)
                # The source is not served any more before the target may be.
                await _keep(source, _mark(begun.token, target_url, is_whole=True))
                await into.finish(replace(there, is_whole=True))
        except NotEmpty as error:
            raise MoveRefused(f"{without_password(target_url)} cannot take a copy: {error}") from error
        except DoesNotFit as error:
            raise MoveRefused(f"PostgreSQL does not take {error}") from error
        except FAULTS as error:
            what = str(error) or type(error).__name__
            raise CopyCutShort(f"The copy was cut short: {what}. Run it again, and it goes on from there") from error
    return True


async def give_up(source_url: str) -> None:
    """Have the source served again, before all of it is copied. What is at the target can no longer be finished.

    Raises:
        MoveRefused: there is nothing to give up, or it is too late.
        DatabaseInUse, StorageUnavailable: it cannot be opened.
    """
    _check_source(source_url)
    async with database_of(source_url, seal=None, whole=False) as source:
        async with source.reading() as connection:
            move = await move_of(connection)
        if move is None or not move.is_source:
            raise MoveRefused("No copy of this database was begun")
        if move.is_whole:
            raise MoveRefused(f"All of it has moved to {move.other}, which may be at work already")
        await source.write(_forget)


async def _begin(source: Database, into: PostgresTarget, source_url: str, target_url: str) -> Move:
    """The move at the target; a new one, or one that was begun before.

    Marks come first at the source, so that it is not served from the moment when there is anything at the target.

    Raises:
        NotEmpty: there is something else at the target. Nothing has changed.
    """
    async with source.reading() as connection:
        here = await move_of(connection)
    there = await into.move()
    if there is not None:
        if here is None or there.is_source or there.token != here.token:
            raise MoveRefused(_TAKEN.format(target=without_password(target_url), other=there.other))
        return there
    if here is not None and here.is_whole:
        raise MoveRefused(here.refusal or "")
    token = secrets.token_hex(8)  # of two targets that a source was copied to only the last can become whole
    await _keep(source, _mark(token, target_url))
    begun = Move(token=token, is_source=False, other=f"sqlite:///{path_of(source_url)}")
    try:
        await into.begin(begun)
    except NotEmpty:
        await (source.write(_forget) if here is None else _keep(source, here))
        raise
    return begun


def _mark(token: str, target_url: str, *, is_whole: bool = False) -> Move:
    return Move(token=token, is_source=True, other=without_password(target_url), is_whole=is_whole)


class _Copying:
    def __init__(self, source: Database, into: PostgresTarget, report: Report) -> None:
        self._source = source
        self._into = into
        self._report = report

    async def run(self, move: Move) -> Move:
        """The target's mark once everything is there."""
        async with self._source.reading() as connection:
            counts = {table.name: await _count(connection, table) for table in tables_to_copy()}
            there = {name: move.progress.get(name, Progress()).rows for name in counts}
            self._report.begins(counts, there)
            for table in tables_to_copy():
                move = await self._table(connection, table, move)
        self._report.verifies()
        found = await self._into.counts()
        if different := [name for name, count in counts.items() if found[name] != count]:
            lines = ", ".join(f"{name} {counts[name]:,} here and {found[name]:,} there" for name in different)
            raise MoveRefused(f"The copy is not the same: {lines}. Begin anew, with `--give-up` and a new database")
        return move

    async def _table(self, connection: Connection, table: Table, move: Move) -> Move:
        done = move.progress.get(table.name, Progress())
        while not done.is_done:
            rows = await _portion(connection, table, done.last)
            last = _key(table, rows[-1]) if rows else done.last
            done = Progress(rows=done.rows + len(rows), last=last, is_done=not rows)
            move = replace(move, progress={**move.progress, table.name: done})
            await self._into.store(table, rows, move)
            self._report.copied(table.name, len(rows))
        return move


async def _portion(connection: Connection, table: Table, after: Key | None) -> Sequence[tuple[Any, ...]]:
    """The next rows of *table*, as the database keeps them: their keys and sizes first, as they may be large."""
    keys = [_raw(column) for column in table.primary_key]
    sizes = select(*keys, _size(table).label("size")).limit(ROWS_AT_ONCE)
    found = (await connection.execute(_beyond(sizes, keys, after).order_by(*keys))).all()
    until: Key | None = within([(tuple(row[:-1]), row.size) for row in found], BYTES_AT_ONCE)
    if until is None:
        return ()
    rows = select(*map(_raw, table.c)).where(tuple_(*keys) <= _values(keys, until))
    return [tuple(row) for row in await connection.execute(_beyond(rows, keys, after).order_by(*keys))]


def _beyond(statement: Select[Any], keys: Sequence[ColumnElement[Any]], after: Key | None) -> Select[Any]:
    return statement if after is None else statement.where(tuple_(*keys) > _values(keys, after))


def _values(keys: Sequence[ColumnElement[Any]], values: Key) -> ColumnElement[Any]:
    return tuple_(*(bindparam(None, value, type_=key.type) for key, value in zip(keys, values, strict=True)))


def _raw(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """*column* as it is kept, past our own types."""
    return type_coerce(column, _kept_as(column.type))


def _kept_as(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    return type_.impl_instance if isinstance(type_, TypeDecorator) else type_


def _size(table: Table) -> ColumnElement[int]:
    size: ColumnElement[int] = bindparam(None, ROW_BYTES)
    for column in table.c:
        if isinstance(_kept_as(column.type), String | LargeBinary):
            size = size + func.coalesce(func.length(column), 0)
    return size


def _key(table: Table, row: tuple[Any, ...]) -> Key:
    names = [column.name for column in table.c]
    return tuple(row[names.index(column.name)] for column in table.primary_key)


async def _days(source: Database) -> Sequence[date]:
    """Those of the attempts to copy, the last ones of them if they are of years."""
    async with source.reading() as connection:
        first, last = (
            await connection.execute(select(func.min(attempts.c.started_at), func.max(attempts.c.started_at)))
        ).one()
    if first is None:
        return ()
    return [last.date() - timedelta(days=ago) for ago in range(min((last.date() - first.date()).days + 1, MOST_DAYS))]


async def _count(connection: Connection, table: Table) -> int:
    count: int = (await connection.execute(select(func.count()).select_from(table))).scalar_one()
    return count


async def _keep(source: Database, move: Move) -> None:
    async def work(transaction: Transaction) -> None:
        await keep_move(transaction.connection, move)

    await source.write(work)


async def _forget(transaction: Transaction) -> None:
    await forget_move(transaction.connection)


def _check(source_url: str, target_url: str) -> None:
    _check_source(source_url)
    if not target_url.startswith(POSTGRES):
        raise MoveRefused("It is copied to PostgreSQL only: postgresql://user:password@host/database")
    try:
        check_url(target_url)
    except ValueError as error:
        raise MoveRefused(f"The target: {error}") from error


def _check_source(source_url: str) -> None:
    if source_url.startswith(POSTGRES):
        raise MoveRefused("Only SQLite databases are copied: for PostgreSQL there are pg_dump and replication")
    try:
        path = path_of(source_url)
    except ValueError as error:
        raise MoveRefused(f"The source: {error}") from error
    if not path.is_file():
        raise MoveRefused(f"There is no database {path}")


_TAKEN = "{target} holds a copy of {other}, another or one that was given up: copy into a new database"
