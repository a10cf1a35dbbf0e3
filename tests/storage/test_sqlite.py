"""The database file: who holds it, whose turn it is, and what happens when it cannot be written."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest
import structlog
from sqlalchemy import insert, text

from gateway.errors import StorageUnavailable
from gateway.events import Cursor, Page
from gateway.storage.database import Database, Transaction
from gateway.storage.engines import database_of
from gateway.storage.engines.sqlite import DatabaseInUse, checkpoints
from gateway.storage.engines.sqlite.database import MANY_ROWS, SqliteDatabase
from gateway.storage.engines.sqlite.file import sync_wal
from gateway.storage.engines.sqlite.steps import InThread
from gateway.storage.log import SqlEventLog, append
from gateway.storage.tables import vault
from tests.builders import NOON, HandClock, a_draft
from tests.storage.arrange import Stores

T = TypeVar("T")


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


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
        async with database_of(f"sqlite:///{path}"):
            pass


async def test_it_is_free_again_when_it_was_closed(path: Path) -> None:
    for _ in range(2):
        async with database_of(f"sqlite:///{path}") as database:
            await SqlEventLog(database).append([[a_draft()]])
    async with database_of(f"sqlite:///{path}") as database:
        assert await cursors(SqlEventLog(database)) == [1, 2]


async def test_an_old_log_keeps_its_epoch_and_a_new_one_has_its_own(path: Path, tmp_path: Path) -> None:
    epochs = []
    for url in (f"sqlite:///{path}", f"sqlite:///{path}", f"sqlite:///{tmp_path}/new.db"):
        async with database_of(url) as database:
            epochs.append((await SqlEventLog(database).position()).epoch)
    assert epochs[0] == epochs[1] != epochs[2]


@pytest.mark.parametrize("url", ["", "gateway.db", "sqlite://", "sqlite:///:memory:", "mysql://u:p@h/d"])
def test_what_is_no_database_that_can_be_used_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"sqlite:///path/to/file\.db"):
        database_of(url)


async def test_writers_take_turns_and_commit_in_the_order_in_which_they_came(stores: Stores) -> None:
    answers = await asyncio.gather(*(stores.log.append([[a_draft()]]) for _ in range(20)))
    places = [answer[0][0].cursor for answer in answers if isinstance(answer[0], tuple)]
    assert places == list(range(1, 21))


# --- when it cannot be written ---------------------------------------------------------------------------------------


async def limit_pages(database: Database, count: int) -> None:
    """Let the file grow to *count* pages at most: to SQLite, a full disk."""

    async def work(transaction: Transaction) -> None:
        await transaction.connection.execute(text(f"PRAGMA max_page_count = {count}"))

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
            async with database_of(url):
                pass


async def test_a_file_that_is_no_database_says_so_at_the_start(no_database: Path) -> None:
    with pytest.raises(StorageUnavailable, match="not a database"):
        async with database_of(f"sqlite:///{no_database}"):
            pass


async def test_a_database_of_a_newer_gateway_says_so_at_the_start(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StorageUnavailable, match="newer"):
        async with database_of(f"sqlite:///{path}"):
            pass


async def test_a_database_that_is_damaged_refuses_and_does_not_guess(path: Path, clock: HandClock) -> None:
    async with database_of(f"sqlite:///{path}", clock=clock) as database:
        await SqlEventLog(database).append([[a_draft(data=b'{"s":"' + b"x" * 100_000 + b'"}') for _ in range(20)]])
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page_size = connection.execute("PRAGMA page_size").fetchone()[0]
        root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'events'").fetchone()[0]
    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * page_size)
        file.write(os.urandom(page_size))
    async with database_of(f"sqlite:///{path}", clock=clock) as database:
        with pytest.raises(StorageUnavailable, match="malformed"):
            await SqlEventLog(database).read(Cursor(0))
        with pytest.raises(StorageUnavailable, match="malformed"):
            await SqlEventLog(database).append([[a_draft()]])


# --- when the power fails --------------------------------------------------------------------------------------------


async def test_events_are_on_disk_before_anybody_hears_of_them_whoever_appended_them(url: str, path: Path) -> None:
    heard: list[str] = []
    database = SqliteDatabase(url, sync=lambda synced: heard.append(f"synced {synced.name}"))
    database.on_commit(lambda page: heard.append(f"page up to {page.last}"))

    async def derived(_: Transaction) -> None:
        pass

    async def notice(transaction: Transaction) -> None:
        await append(transaction, [[a_draft()]], now=NOON)

    async with database:
        await database.write(derived, durable=False)
        await database.write(notice, durable=False)
        await database.write(notice, durable=True)  # such a commit is on disk by itself
    assert heard == [f"synced {path.name}", "page up to 1", "page up to 2"]


async def test_events_that_may_not_be_on_disk_are_announced_to_nobody(url: str) -> None:
    def broken(_: Path) -> None:
        raise OSError(5, "Input/output error")

    pages: list[Page] = []
    database = SqliteDatabase(url, sync=broken)
    database.on_commit(pages.append)

    async def notice(transaction: Transaction) -> None:
        await append(transaction, [[a_draft()]], now=NOON)

    async with database:
        with pytest.raises(StorageUnavailable, match="Input/output error"):
            await database.write(notice, durable=False)
    assert pages == []


async def many_rows(transaction: Transaction) -> None:
    values = [{"name": f"{number}", "value": b""} for number in range(MANY_ROWS)]
    await transaction.connection.execute(insert(vault), values)


async def few_rows(transaction: Transaction) -> None:
    await transaction.connection.execute(insert(vault), [{"name": "few", "value": b""}])


async def test_large_commits_that_need_not_be_on_disk_are_brought_there_before_somebody_has_to_wait_for_it(
    url: str, path: Path
) -> None:
    synced: list[Path] = []
    async with SqliteDatabase(url, sync=synced.append) as database:
        await database.write(few_rows, durable=False)
        await database.write(many_rows, durable=False)
    assert synced == [path]


async def test_a_disk_that_fails_then_is_told_of_and_harms_nobody(url: str) -> None:
    def broken(_: Path) -> None:
        raise OSError(5, "Input/output error")

    with structlog.testing.capture_logs() as logs:
        async with SqliteDatabase(url, sync=broken) as database:
            await database.write(many_rows, durable=False)
            await database.write(few_rows, durable=False)
    assert [each["event"] for each in logs] == ["flush.failed"]


async def test_the_write_ahead_log_can_be_synced_while_it_is_in_use(url: str, path: Path) -> None:
    async with database_of(url) as database:
        log = SqlEventLog(database)
        await log.append([[a_draft()]])
        sync_wal(path)
        await log.append([[a_draft()]])
        assert await cursors(log) == [1, 2]
    with pytest.raises(FileNotFoundError):
        sync_wal(path.with_name("elsewhere.db"))


# --- checkpoints -----------------------------------------------------------------------------------------------------


class HeldUp(InThread):
    """A writer's thread that is in the middle of its first step until it may go on."""

    def __init__(self) -> None:
        super().__init__("writer")
        self.loop = asyncio.get_running_loop()
        self.is_at_it = asyncio.Event()
        self.may_go_on = threading.Event()
        self.done = list[str]()

    def __call__(self, step: Callable[[], T], /) -> Awaitable[T]:
        def held() -> T:
            self.loop.call_soon_threadsafe(self.is_at_it.set)
            self.may_go_on.wait(10)
            found = step()
            self.done.append("a checkpoint")
            return found

        return super().__call__(held)


async def test_a_checkpoint_in_the_writers_thread_comes_to_its_end_before_its_connection_is_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(checkpoints, "RESTART_BYTES", -1)
    writer = HeldUp()
    running = asyncio.create_task(checkpoints.Checkpoints(path, writer).run())
    await writer.is_at_it.wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    writer.may_go_on.set()
    await asyncio.to_thread(writer.end)
    assert writer.done == ["a checkpoint"]
