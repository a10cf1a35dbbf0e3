"""Sessions of PostgreSQL beside those of the stores."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def is_waited_for(url: str, count: int = 1) -> None:
    """Until so many sessions wait for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with session(url) as connection, asyncio.timeout(10):
        while await connection.fetchval(waiting) < count:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.01)
