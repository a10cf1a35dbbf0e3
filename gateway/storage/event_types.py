"""Event types in SQL. The built-in ones have a row only once somebody has changed them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, func, select

from gateway.errors import Conflict
from gateway.event_types import BUILT_IN, EventTypeRecord, Validation
from gateway.events import Cursor
from gateway.listing import EXAMINED_BYTES, Listing
from gateway.storage import notices
from gateway.storage.connection import Connection
from gateway.storage.database import Database, Transaction
from gateway.storage.dialects import upsert
from gateway.storage.log import hold
from gateway.storage.rows import within
from gateway.storage.tables import event_types

MAX_TYPES = 1_000
"""All that are checked are held in memory, in every process."""


class SqlEventTypeStore:
    """`gateway.ports.event_types.EventTypeStore` over a `Database`."""

    def __init__(self, database: Database, *, most: int = MAX_TYPES, page_bytes: int = EXAMINED_BYTES) -> None:
        self._database = database
        self._most = most
        self._page_bytes = page_bytes

    async def put(self, record: EventTypeRecord) -> EventTypeRecord:
        async def work(transaction: Transaction) -> EventTypeRecord:
            connection, now = transaction.connection, self._database.clock()
            await hold(connection)  # two at once would both be new, and count themselves in
            created = select(event_types.c.created_cursor).where(event_types.c.type == record.type)
            created_cursor = await connection.scalar(created)
            count = select(func.count()).select_from(event_types)
            if created_cursor is None and (await connection.execute(count)).scalar_one() >= self._most:
                raise Conflict(f"there are {self._most:,} event types, which is as many as there may be")
            cursor = await notices.tell(transaction, notices.event_type_updated(record), now=now)
            stored = replace(record, updated_at=now, cursor=cursor)
            row = {
                "type": stored.type,
                "description": stored.description,
                "schema": stored.schema,
                "validation": stored.validation.value,
                "created_cursor": cursor if created_cursor is None else created_cursor,
                "cursor": cursor,
                "updated_at": now,
            }
            await connection.execute(upsert(connection, event_types), row)
            return stored

        return await self._database.write(work)

    async def list(self, *, limit: int, before: str | None) -> Listing[EventTypeRecord, str]:
        async with self._database.reading() as connection:
            sizes = [] if before in BUILT_IN else await _added(connection, limit + 1, before)
            names = list(BUILT_IN)
            sizes += [(name, 0) for name in (names[names.index(before) + 1 :] if before in names else names)]
            last = within(sizes[:limit], self._page_bytes)
            shown = [name for name, _ in sizes]
            shown = [] if last is None else shown[: shown.index(last) + 1]
            found = await connection.execute(select(event_types).where(event_types.c.type.in_(shown)))
            stored = {row.type: _record(row) for row in found}
        rows = tuple(stored.get(name) or BUILT_IN[name] for name in shown)
        return Listing(rows, last if len(sizes) > len(rows) else None)

    async def active(self) -> Sequence[EventTypeRecord]:
        checked = select(event_types).where(event_types.c.validation != Validation.OFF.value)
        async with self._database.reading() as connection:
            return [_record(row) for row in await connection.execute(checked)]


async def _added(connection: Connection, limit: int, before: str | None) -> list[tuple[str, int]]:
    """The types that are not built in, newest first, each with the size of its schema."""
    size = func.coalesce(func.length(event_types.c.schema), 0)
    newest = (
        select(event_types.c.type, size)
        .where(event_types.c.type.not_in(list(BUILT_IN)))
        .order_by(event_types.c.created_cursor.desc())
        .limit(limit)
    )
    if before is not None:
        place = select(event_types.c.created_cursor).where(event_types.c.type == before).scalar_subquery()
        newest = newest.where(event_types.c.created_cursor < place)
    return [(name, length) for name, length in await connection.execute(newest)]


def _record(row: Row[Any]) -> EventTypeRecord:
    return EventTypeRecord(
        type=row.type,
        description=row.description,
        schema=row.schema,
        validation=Validation(row.validation),
        updated_at=row.updated_at,
        cursor=Cursor(row.cursor),
    )
