"""The event log in SQL: contiguous cursors in commit order, each batch wholly or not at all."""

from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update

from gateway.events import Cursor, Draft, LoggedEvent, Page, Position, accepted
from gateway.intake.sameness import same_content
from gateway.listing import Listing
from gateway.ports.log import Appended, HistoryQuery, IdTaken, Receipt
from gateway.storage.connection import Connection
from gateway.storage.database import Database, Transaction
from gateway.storage.history import read_history
from gateway.storage.rows import logged, row_of, within
from gateway.storage.tables import events, log

_IDS_AT_ONCE = 500  # parameters in one statement

# Made once: to put them together takes longer than to run them.
_POSITION = select(log.c.epoch, log.c.head, log.c.earliest)
_HOLD = select(log.c.head, log.c.last_accepted_at).with_for_update()
_WITH_IDS = select(events).where(events.c.id.in_(bindparam("ids", expanding=True)))
_ADD = insert(events)
_MOVE = update(log).values(head=bindparam("new_head"), last_accepted_at=bindparam("accepted_at"))
_SIZES_AFTER = (
    select(events.c.cursor, func.length(events.c.data))
    .where(events.c.cursor > bindparam("after"))
    .order_by(events.c.cursor)
    .limit(bindparam("most"))
)
_BETWEEN = (
    select(events)
    .where(events.c.cursor > bindparam("after"), events.c.cursor <= bindparam("last"))
    .order_by(events.c.cursor)
)


class SqlEventLog:
    """`gateway.ports.log.EventLog` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def position(self) -> Position:
        async with self._database.reading() as connection:
            return await position(connection)

    async def append(self, batches: Sequence[Sequence[Draft]]) -> list[Appended]:
        drafts = [draft for batch in batches for draft in batch]
        at_once = self._database.append_at_once
        appended: Sequence[LoggedEvent] = ()
        if at_once is not None and drafts and len({draft.id for draft in drafts}) == len(drafts):
            appended = await at_once(drafts)
        if appended:
            receipts = iter([Receipt(event.id, event.cursor, duplicate=False) for event in appended])
            return [tuple(islice(receipts, len(batch))) for batch in batches]

        async def work(transaction: Transaction) -> list[Appended]:
            now = self._database.clock()
            return await append(transaction, batches, now=now, in_doubt=at_once is not None)

        return await self._database.write(work)

    async def read(self, after: Cursor, *, limit: int = 1000, max_bytes: int = 2**20) -> Page:
        async with self._database.reading() as connection:
            sizes = await connection.execute(_SIZES_AFTER, {"after": after, "most": limit})
            last = within(sizes.all(), max_bytes)
            if last is None:
                return Page(after=after, events=())
            page = await connection.execute(_BETWEEN, {"after": after, "last": last})
            return Page(after=after, events=tuple(map(logged, page)))

    async def history(self, query: HistoryQuery) -> Listing[LoggedEvent, Cursor]:
        async with self._database.reading() as connection:
            where = await position(connection)
            first, last = int(where.earliest), int(where.head)
            if query.after is not None:
                first = max(first, query.after + 1)
            if query.since is not None:
                first = max(first, await first_since(connection, where, query.since))
            if query.until is not None:
                last = min(last, await first_since(connection, where, query.until) - 1)
            return await read_history(connection, query, first, last)

    async def get(self, event_id: str) -> LoggedEvent | None:
        async with self._database.reading() as connection:
            row = (await connection.execute(select(events).where(events.c.id == event_id))).one_or_none()
            return None if row is None else logged(row)

    async def before(self, moment: datetime) -> Cursor:
        async with self._database.reading() as connection:
            return Cursor(await first_since(connection, await position(connection), moment) - 1)

    async def dropped_until(self) -> datetime | None:
        async with self._database.reading() as connection:
            dropped: datetime | None = (await connection.execute(select(log.c.dropped_until))).scalar_one()
            return dropped


async def position(connection: Connection) -> Position:
    row = (await connection.execute(_POSITION)).one()
    return Position(epoch=row.epoch, head=Cursor(row.head), earliest=Cursor(row.earliest))


async def append(
    transaction: Transaction, batches: Sequence[Sequence[Draft]], *, now: datetime, in_doubt: bool = False
) -> list[Appended]:
    """Append *batches* within *transaction*; see `EventLog.append`. Also how the other stores log their notices.

    *in_doubt*: it was tried before, and any of them may be there.
    """
    connection = transaction.connection
    row = await hold(connection)
    held = await _held(connection, [draft.id for batch in batches for draft in batch if draft.id_is_own or in_doubt])
    writer = _Writer(held, Cursor(row.head), max(now, row.last_accepted_at))
    answers = [writer.append(batch) for batch in batches]
    if writer.written:
        await connection.execute(_ADD, [row_of(event) for event in writer.written])
        await connection.execute(_MOVE, {"new_head": writer.head, "accepted_at": writer.accepted_at})
        transaction.appended += writer.written
    return answers


async def hold(connection: Connection) -> Any:  # noqa: ANN401 - a row
    """Keep others from appending until the transaction ends: what is read after this, in a statement of its own, is
    what the log has. What the statement that waits for its turn has read before may be older."""
    return (await connection.execute(_HOLD)).one()


class _Writer:
    """Gives out cursors, batch after batch; what a refused batch would have taken is given to the next."""

    def __init__(self, held: dict[str, LoggedEvent], head: Cursor, accepted_at: datetime) -> None:
        self.held, self.head, self.accepted_at = held, head, accepted_at
        self.written: list[LoggedEvent] = []

    def append(self, batch: Sequence[Draft]) -> Appended:
        receipts: list[Receipt] = []
        fresh: dict[str, LoggedEvent] = {}
        cursor = self.head
        for index, draft in enumerate(batch):
            stored = fresh.get(draft.id) or self.held.get(draft.id)
            if stored is None:
                cursor = Cursor(cursor + 1)
                fresh[draft.id] = accepted(draft, cursor, self.accepted_at)
                receipts.append(Receipt(draft.id, cursor, duplicate=False))
            elif same_content(draft, stored):
                # One that the gateway made is there only if this very draft is.
                receipts.append(Receipt(draft.id, stored.cursor, duplicate=draft.id_is_own))
            else:
                return IdTaken(index, draft.id)
        self.head = cursor
        self.held |= fresh
        self.written += fresh.values()
        return tuple(receipts)


async def _held(connection: Connection, ids: Sequence[str]) -> dict[str, LoggedEvent]:
    held: dict[str, LoggedEvent] = {}
    for start in range(0, len(ids), _IDS_AT_ONCE):
        some = {"ids": ids[start : start + _IDS_AT_ONCE]}
        held |= {row.id: logged(row) for row in await connection.execute(_WITH_IDS, some)}
    return held


async def first_since(connection: Connection, where: Position, moment: datetime) -> int:
    """The first cursor accepted at *moment* or later, `head + 1` if none: bisection, since times rise with cursors."""
    low, high = int(where.earliest), where.head + 1
    while low < high:
        middle = (low + high) // 2
        accepted = select(events.c.accepted_at).where(events.c.cursor == middle)
        found: datetime | None = await connection.scalar(accepted)
        if found is None or found < moment:  # one that has just left the log was older than all others
            low = middle + 1
        else:
            high = middle
    return low
