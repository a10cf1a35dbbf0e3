"""The database file: who holds it, in what order it is written, and what happens when it cannot be."""

import asyncio
import os
import sqlite3
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.errors import StorageUnavailable
from gateway.events import Cursor, Page
from gateway.storage.database import Database, Transaction
from gateway.storage.log import SqlEventLog, append
from gateway.storage.sqlite import DatabaseInUse
from tests.builders import NOON, HandClock, a_draft
from tests.storage.arrange import Stores


async def cursors(log: SqlEventLog) -> list[int]:
    return [event.cursor for event in (await log.read(Cursor(0), limit=10_000)).events]


@pytest.fixture
def no_database(tmp_path: Path) -> Path:
    path = tmp_path / "letter.db"
    path.write_bytes(b"Dear database, this is a text, and not a short one. " * 100)
    return path


# --- who holds it ----------------------------------------------------------------------------------------------------


async def test_a_second_process_is_refused_in_words_that_say_what_to_do(database: Database, path: Path) -> None:
    with pytest.raises(DatabaseInUse, match="stop the other first"):
        async with Database(f"sqlite:///{path}"):
            pass


async def test_it_is_free_again_when_it_was_closed(path: Path) -> None:
    for _ in range(2):
        async with Database(f"sqlite:///{path}") as database:
            await SqlEventLog(database).append([[a_draft()]])
    async with Database(f"sqlite:///{path}") as database:
        assert await cursors(SqlEventLog(database)) == [1, 2]


async def test_an_old_log_keeps_its_epoch_and_a_new_one_has_its_own(path: Path, tmp_path: Path) -> None:
    epochs = []
    for url in (f"sqlite:///{path}", f"sqlite:///{path}", f"sqlite:///{tmp_path}/new.db"):
        async with Database(url) as database:
            epochs.append((await SqlEventLog(database).position()).epoch)
    assert epochs[0] == epochs[1] != epochs[2]


@pytest.mark.parametrize("url", ["", "gateway.db", "sqlite://", "sqlite:///:memory:", "mysql://u:p@h/d"])
def test_what_is_no_database_that_can_be_used_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected sqlite:///path/to/file\.db"):
        Database(url)


# --- order -----------------------------------------------------------------------------------------------------------


async def test_writers_take_turns_and_commit_in_the_order_in_which_they_came(stores: Stores) -> None:
    answers = await asyncio.gather(*(stores.log.append([[a_draft()]]) for _ in range(20)))
    places = [answer[0][0].cursor for answer in answers if isinstance(answer[0], tuple)]
    assert places == list(range(1, 21))


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


async def test_a_write_goes_to_its_end_when_its_caller_is_cancelled(stores: Stores) -> None:
    begun, may_end = threading.Event(), threading.Event()

    async def work(transaction: Transaction) -> None:
        await append(transaction, [[a_draft()]], now=NOON)
        begun.set()
        await asyncio.to_thread(may_end.wait)

    caller = asyncio.create_task(stores.database.write(work))
    await asyncio.to_thread(begun.wait)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    may_end.set()
    await stores.publish()  # waits its turn
    assert await cursors(stores.log) == [1, 2]


async def test_closing_waits_for_writes_under_way(path: Path, clock: HandClock) -> None:
    begun, may_end = threading.Event(), threading.Event()

    async def work(transaction: Transaction) -> None:
        begun.set()
        await asyncio.to_thread(may_end.wait)
        await append(transaction, [[a_draft()]], now=NOON)

    async with Database(f"sqlite:///{path}", clock=clock) as database:
        caller = asyncio.create_task(database.write(work))
        await asyncio.to_thread(begun.wait)
        caller.cancel()
        asyncio.get_running_loop().call_soon(may_end.set)
    async with Database(f"sqlite:///{path}", clock=clock) as database:
        assert await cursors(SqlEventLog(database)) == [1]


async def test_a_reader_that_is_cancelled_gives_its_connection_back(stores: Stores) -> None:
    for _ in range(20):  # more than there are connections
        reader = asyncio.create_task(stores.log.read(Cursor(0)))
        await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait([reader])
    assert await cursors(stores.log) == []


# --- when it cannot be written ---------------------------------------------------------------------------------------


async def limit_pages(database: Database, count: int) -> None:
    """Let the file grow to *count* pages at most: to SQLite, a full disk."""

    async def work(transaction: Transaction) -> None:
        await transaction.connection.exec_driver_sql(f"PRAGMA max_page_count = {count}")

    await database.write(work)


async def test_a_full_disk_refuses_what_does_not_fit_and_goes_on_when_there_is_room(stores: Stores) -> None:
    pages: list[Page] = []
    stores.database.on_commit(pages.append)
    await stores.publish()
    await limit_pages(stores.database, 1)  # SQLite takes that as "no more than there are"
    with pytest.raises(StorageUnavailable, match="full"):
        await stores.log.append([[a_draft(data=b'{"s":"' + b"x" * 200_000 + b'"}')]])
    assert await cursors(stores.log) == [1]
    await limit_pages(stores.database, 1_000_000)
    await stores.publish()
    assert await cursors(stores.log) == [1, 2]
    assert [page.last for page in pages] == [1, 2]


async def test_a_file_that_cannot_be_opened_says_so_at_the_start(tmp_path: Path) -> None:
    for url, words in ((f"sqlite:///{tmp_path}", "unable to open"), (f"sqlite:///{tmp_path}/no/g.db", "No such file")):
        with pytest.raises(StorageUnavailable, match=words):
            async with Database(url):
                pass


async def test_a_file_that_is_no_database_says_so_at_the_start(no_database: Path) -> None:
    with pytest.raises(StorageUnavailable, match="not a database"):
        async with Database(f"sqlite:///{no_database}"):
            pass


async def test_a_database_of_a_newer_gateway_says_so_at_the_start(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StorageUnavailable, match="newer"):
        async with Database(f"sqlite:///{path}"):
            pass


async def test_a_database_that_is_damaged_refuses_and_does_not_guess(path: Path, clock: HandClock) -> None:
    async with Database(f"sqlite:///{path}", clock=clock) as database:
        await SqlEventLog(database).append([[a_draft(data=b'{"s":"' + b"x" * 100_000 + b'"}') for _ in range(20)]])
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page_size = connection.execute("PRAGMA page_size").fetchone()[0]
        root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'events'").fetchone()[0]
    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * page_size)
        file.write(os.urandom(page_size))
    async with Database(f"sqlite:///{path}", clock=clock) as database:
        with pytest.raises(StorageUnavailable, match="malformed"):
            await SqlEventLog(database).read(Cursor(0))
        with pytest.raises(StorageUnavailable, match="malformed"):
            await SqlEventLog(database).append([[a_draft()]])
