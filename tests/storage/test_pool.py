"""Connections to PostgreSQL that are used in turn: each is handed out in no transaction, whatever was done with it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest

from gateway.storage.engines.postgres.pool import Pool
from gateway.storage.engines.postgres.server import connect

HERE = "SELECT pg_backend_pid()"


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    """Of one connection, so that the next is the same, unless that is gone."""
    pool = Pool(lambda: connect(postgres_url), size=1, patience_seconds=2)
    yield pool
    await pool.close()


async def test_the_next_one_has_the_same_connection(pool: Pool) -> None:
    async with pool.one() as raw:
        first = await raw.fetchval(HERE)
    async with pool.one() as raw:
        assert await raw.fetchval(HERE) == first


async def test_what_is_not_committed_is_rolled_back_before_the_next_one_has_it(pool: Pool) -> None:
    async with pool.one() as raw:
        first = await raw.fetchval(HERE)
        await raw.execute("BEGIN; SET LOCAL synchronous_commit = off; INSERT INTO tallies (figures) VALUES ('')")
    async with pool.one() as raw:
        assert not raw.is_in_transaction()
        assert (await raw.fetchval(HERE), await raw.fetchval("SHOW synchronous_commit")) == (first, "on")
        assert await raw.fetchval("SELECT count(*) FROM tallies") == 0


async def test_one_that_failed_is_of_use_again(pool: Pool) -> None:
    async def fail() -> None:
        async with pool.one() as raw:
            await raw.execute("BEGIN")
            await raw.execute("SELECT * FROM nowhere")

    with pytest.raises(asyncpg.UndefinedTableError):
        await fail()
    async with pool.one() as raw:
        assert await raw.fetchval("SELECT 1") == 1


async def test_one_that_waits_for_an_answer_when_its_user_gives_up_is_not_handed_out_again(pool: Pool) -> None:
    asked = asyncio.Event()
    pids: list[int] = []

    async def ask() -> None:
        async with pool.one() as raw:
            pids.append(await raw.fetchval(HERE))
            asked.set()
            await raw.execute("BEGIN; SELECT pg_sleep(60)")

    asking = asyncio.create_task(ask())
    await asked.wait()
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    async with pool.one() as raw:
        assert not raw.is_in_transaction()
        assert await raw.fetchval(HERE) not in pids


async def test_who_finds_all_in_use_is_told_after_a_while(postgres_url: str) -> None:
    pool = Pool(lambda: connect(postgres_url), size=1, patience_seconds=0.05)
    async with pool.one():
        with pytest.raises(TimeoutError):
            await pool.one().__aenter__()
    await pool.close()


async def test_a_place_is_not_lost_to_a_connection_that_could_not_be_made(postgres_url: str) -> None:
    answers = iter([False, True])

    async def sometimes() -> asyncpg.Connection:
        if not next(answers):
            raise ConnectionRefusedError
        return await connect(postgres_url)

    pool = Pool(sometimes, size=1, patience_seconds=2)
    with pytest.raises(ConnectionRefusedError):
        await pool.one().__aenter__()
    async with pool.one() as raw:
        assert await raw.fetchval("SELECT 1") == 1
    await pool.close()
