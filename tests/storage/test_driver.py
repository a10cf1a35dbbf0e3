"""The way to SQLite: how many trips a statement takes, and that each takes its own."""

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from gateway.storage.engines.sqlite.driver import InPlace, InThread, Runs, connect
from gateway.storage.engines.sqlite.own_loop import OwnLoop

T = TypeVar("T")


class Counting:
    """Takes steps in place, and counts them."""

    def __init__(self) -> None:
        self.steps = 0

    async def __call__(self, step: Callable[[], T], /) -> T:
        self.steps += 1
        return step()

    def end(self) -> None:
        pass


@pytest.fixture(params=[InPlace, InThread])
def run(request: pytest.FixtureRequest) -> Runs:
    made: Runs = request.param()
    return made


async def test_a_statement_with_its_rows_is_one_step(tmp_path: Path) -> None:
    run = Counting()
    engine = create_async_engine("sqlite+aiosqlite://", async_creator=lambda *_, **__: connect(tmp_path / "a.db", run))
    async with engine.connect() as connection:
        before = run.steps
        assert (await connection.execute(text("VALUES (1), (2)"))).scalars().all() == [1, 2]
        assert run.steps == before + 1
    await engine.dispose()


async def test_rows_counts_and_errors_are_those_of_the_statement(tmp_path: Path, run: Runs) -> None:
    connection = await connect(tmp_path / "a.db", run)
    cursor = connection.cursor()
    await cursor.execute("CREATE TABLE t (a INTEGER PRIMARY KEY)")
    assert await cursor.fetchall() == ()
    await cursor.executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
    assert cursor.rowcount == 2
    with pytest.raises(sqlite3.IntegrityError):
        await cursor.execute("INSERT INTO t VALUES (?)", (1,))
    await cursor.execute("SELECT a FROM t ORDER BY a")
    assert (await cursor.fetchall(), await cursor.fetchall()) == ([(1,), (2,)], ())
    await connection.close()


async def test_steps_in_a_thread_hold_up_nobody_else_and_keep_their_order(tmp_path: Path) -> None:
    connection = await connect(tmp_path / "a.db", InThread())
    may_go_on = threading.Event()
    await connection.create_function("wait", 0, may_go_on.wait)
    first, second = connection.cursor(), connection.cursor()
    slow = asyncio.ensure_future(first.execute("SELECT wait()"))
    after = asyncio.ensure_future(second.execute("SELECT 2"))
    await asyncio.sleep(0)  # this loop goes on while the thread waits
    slow.cancel()  # whoever asked has gone; the step itself goes to its end
    may_go_on.set()
    await after
    assert await second.fetchall() == [(2,)]
    assert await first.fetchall() == ()
    await connection.close()


async def test_a_loop_of_its_own_answers_raises_and_is_cancelled() -> None:
    began = threading.Event()

    async def thread() -> str:
        return threading.current_thread().name

    async def fail() -> None:
        raise LookupError

    async def forever() -> None:
        began.set()
        await asyncio.Event().wait()

    async with OwnLoop("elsewhere") as own:
        assert await own.run(thread()) == "elsewhere"
        with pytest.raises(LookupError):
            await own.run(fail())
        waiting: Awaitable[None] = asyncio.ensure_future(own.run(forever()))
        await asyncio.to_thread(began.wait)
        asyncio.ensure_future(waiting).cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert not [one for one in threading.enumerate() if one.name == "elsewhere"]
