"""One process on duty at a time: whoever holds a lock that PostgreSQL takes back when its session ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import structlog

from gateway.storage.engines.postgres.server import FAULTS, connect, is_alive, terminate

ASK_SECONDS = 1.0
"""How often one that waits asks whether it is its turn, and one on duty whether its session is alive."""
SILENCE_SECONDS = 3.0
_SESSION = {"idle_session_timeout": "10s"}
"""The server ends the session of a process that says nothing for so long: one that is stopped holds up nobody."""

_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('arrw-gateway.duty.' || current_schema(), 0))"

_logger = structlog.get_logger(__name__)


@asynccontextmanager
async def on_duty(url: str) -> AsyncIterator[asyncio.Event]:
    """See `Database.on_duty`."""
    connection = await _turn(url)
    is_over = asyncio.Event()
    watch = asyncio.create_task(_watch(connection, is_over), name="duty-watch")
    _logger.info("duty.begins")
    try:
        yield is_over
    finally:
        _logger.info("duty.ends")
        watch.cancel()
        await asyncio.wait([watch])
        terminate(connection)


async def _turn(url: str) -> asyncpg.Connection:
    """A session that holds the lock, whenever that may be."""
    is_away = False
    while True:
        try:
            connection = await connect(url, _SESSION)
        except FAULTS as error:
            if not is_away:
                _logger.warning("duty.database_away", error=repr(error))
            is_away = True
            await asyncio.sleep(ASK_SECONDS)
            continue
        is_away = False
        try:
            while not await connection.fetchval(_LOCK):  # noqa: ASYNC110 - nothing tells of another process's end
                await asyncio.sleep(ASK_SECONDS)
            return connection
        except FAULTS as error:
            _logger.warning("duty.waiting_again", error=repr(error))
            terminate(connection)
        except BaseException:
            terminate(connection)
            raise


async def _watch(connection: asyncpg.Connection, is_over: asyncio.Event) -> None:
    """Set *is_over* when the session has ended, or answers nothing any more."""
    connection.add_termination_listener(lambda _: is_over.set())
    while not is_over.is_set():
        await asyncio.sleep(ASK_SECONDS)
        if not await is_alive(connection, within_seconds=SILENCE_SECONDS):
            is_over.set()
