"""What every database promises: in what order it is written, who hears of it, and callers that go away."""

import asyncio
import threading
from itertools import pairwise

import pytest
from sqlalchemy import text

from gateway.errors import StorageUnavailable
from gateway.events import Cursor, Page
from gateway.storage.database import Transaction
from gateway.storage.engines import database_of
from gateway.storage.log import SqlEventLog, append
from tests.builders import NOON, HandClock, a_draft
from tests.storage.arrange import Stores


async def cursors(log: SqlEventLog) -> list[int]:
    return [event.cursor for event in (await log.read(Cursor(0), limit=10_000)).events]


# --- order -----------------------------------------------------------------------------------------------------------


async def test_writers_side_by_side_leave_no_hole_in_the_log(stores: Stores) -> None:
    answers = await asyncio.gather(*(stores.log.append([[a_draft()]]) for _ in range(20)))
    places = [answer[0][0].cursor for answer in answers if isinstance(answer[0], tuple)]
    assert sorted(places) == list(range(1, 21)) == await cursors(stores.log)


async def test_commits_are_announced_in_the_order_of_the_log(stores: Stores) -> None:
    pages: list[Page] = []
    stores.database.on_commit(pages.append)
    await asyncio.gather(
        *(stores.log.append([[a_draft(), a_draft()]]) for _ in range(5)),
        *(stores.subscribe() for _ in range(5)),
    )
    assert [event.cursor for page in pages for event in page.events] == list(range(1, 16))
    assert all(before.last == after.after for before, after in pairwise(pages))


async def test_one_who_fails_to_hear_of_a_commit_harms_neither_it_nor_the_others(stores: Stores) -> None:
    pages: list[Page] = []

    def fail(_: Page) -> None:
        raise LookupError

    stores.database.on_commit(fail)
    stores.database.on_commit(pages.append)
    await stores.publish()
    assert [page.last for page in pages] == [1]


async def test_what_is_announced_can_be_read(stores: Stores) -> None:
    reads: list[asyncio.Task[list[int]]] = []
    stores.database.on_commit(lambda _: reads.append(asyncio.create_task(cursors(stores.log))))
    await stores.publish()
    assert await reads[0] == [1]


async def test_what_was_rolled_back_is_neither_kept_nor_announced(stores: Stores) -> None:
    pages: list[Page] = []
    stores.database.on_commit(pages.append)

    async def work(transaction: Transaction) -> None:
        await append(transaction, [[a_draft()]], now=NOON)
        raise LookupError

    with pytest.raises(LookupError):
        await stores.database.write(work)
    assert pages == []
    assert await cursors(stores.log) == []
    await stores.publish()
    assert [page.last for page in pages] == [1]


async def test_one_read_sees_one_state_while_others_write(stores: Stores) -> None:
    await stores.publish()
    count = text("SELECT count(*) FROM events")
    async with stores.database.reading() as connection:
        assert await connection.scalar(count) == 1
        await stores.publish()
        assert await connection.scalar(count) == 1
    assert len(await cursors(stores.log)) == 2


async def test_readers_cannot_write(stores: Stores) -> None:
    with pytest.raises(StorageUnavailable):
        async with stores.database.reading() as connection:
            await connection.execute(text("DELETE FROM log"))
    assert (await stores.log.position()).head == 0


# --- callers that go away --------------------------------------------------------------------------------------------


async def held_until(event: threading.Event, transaction: Transaction) -> None:
    """Hold *transaction* open: with SQLite its thread waits, as for a disk; with PostgreSQL the loop goes on."""
    if transaction.connection.dialect.name == "sqlite":
        event.wait()
    else:
        await asyncio.to_thread(event.wait)


async def test_a_write_goes_to_its_end_when_its_caller_is_cancelled(stores: Stores) -> None:
    begun, may_end = threading.Event(), threading.Event()

    async def work(transaction: Transaction) -> None:
        await append(transaction, [[a_draft()]], now=NOON)
        begun.set()
        await held_until(may_end, transaction)

    caller = asyncio.create_task(stores.database.write(work))
    await asyncio.to_thread(begun.wait)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    may_end.set()
    await stores.publish()  # waits its turn
    assert await cursors(stores.log) == [1, 2]


async def test_closing_waits_for_writes_under_way(url: str, clock: HandClock) -> None:
    begun, may_end = threading.Event(), threading.Event()

    async def work(transaction: Transaction) -> None:
        begun.set()
        await held_until(may_end, transaction)
        await append(transaction, [[a_draft()]], now=NOON)

    async with database_of(url, clock=clock) as database:
        caller = asyncio.create_task(database.write(work))
        await asyncio.to_thread(begun.wait)
        caller.cancel()
        asyncio.get_running_loop().call_soon(may_end.set)
    async with database_of(url, clock=clock) as database:
        assert await cursors(SqlEventLog(database)) == [1]


async def test_a_reader_that_is_cancelled_gives_its_connection_back(stores: Stores) -> None:
    for _ in range(20):  # more than there are connections
        reader = asyncio.create_task(stores.log.read(Cursor(0)))
        await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait([reader])
    assert await cursors(stores.log) == []
