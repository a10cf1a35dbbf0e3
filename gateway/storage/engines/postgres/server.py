"""PostgreSQL as the gateway uses it: how its connections are made, how long one may hold up others, what ails one."""

import asyncio
from collections.abc import Mapping

import asyncpg
from sqlalchemy.exc import DBAPIError, NotSupportedError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

POSTGRES = ("postgresql://", "postgres://")
CONNECT_SECONDS = 5
CONNECTIONS = 8
"""Of each kind: those that write, and those that only read."""
WORK_SECONDS = 30
"""One piece of work at most, from its first statement to its last: a server that has stopped answers nothing at all."""

FAULTS = (DBAPIError, NoConnectionFree, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""What a server that is away, stopped or overwhelmed comes to. TimeoutError is an OSError."""

_ROLLED_BACK = frozenset({"40001", "40P01"})
"""Others got in the way: a serialisation failure, a deadlock."""
_AWAY = frozenset({"57P01", "57P02", "57P03"})
"""It is stopping, has crashed, or is starting."""

# A process that is stopped, or cut off, in the middle of a transaction must not block every publisher.
_EVERY_SESSION = {
    "application_name": "arrw-gateway",
    "statement_timeout": "10s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    "synchronous_commit": "on",  # whatever the server does for others; what may be lost is said by each transaction
    "jit": "off",  # takes longer than any statement here
}
_READERS = {"default_transaction_isolation": "repeatable read", "default_transaction_read_only": "on"}
_WRITERS = {"default_transaction_isolation": "read committed"}


async def connect(url: str, settings: Mapping[str, str] | None = None) -> asyncpg.Connection:
    """A connection of its own. *url* is understood as libpq does: `sslmode`, several hosts and the rest.

    Raises:
        asyncpg.PostgresError, asyncpg.InterfaceError, OSError: see `FAULTS`.
    """
    return await asyncpg.connect(url, timeout=CONNECT_SECONDS, server_settings={**_EVERY_SESSION, **(settings or {})})


def engine(url: str, *, writers: bool) -> AsyncEngine:
    """Connections that write, each transaction seeing what was committed before each of its statements; or that only
    read, each seeing one state throughout."""
    settings = _WRITERS if writers else _READERS
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect(url, settings),
        poolclass=AsyncAdaptedQueuePool,
        pool_size=CONNECTIONS,
        max_overflow=0,
        hide_parameters=True,  # they may be secrets, and errors are logged
        pool_timeout=CONNECT_SECONDS,
    )


def check_url(url: str) -> None:
    """Raises:
    ValueError: *url* names no server and database, in words that say what is wrong with it.
    """
    expected = "expected postgresql://user:password@host:port/database"
    # asyncpg reads it only when it connects, and fills what is missing from the environment.
    place, _, _ = url.partition("://")[2].partition("?")
    if not url.startswith(POSTGRES) or not place.partition("/")[2]:
        raise ValueError(expected)


def may_be_repeated(error: BaseException) -> bool:
    """Whether work that failed so, before its commit, may succeed if it is done again at once."""
    if isinstance(error, NotSupportedError):  # prepared before another process migrated the tables
        return True
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None)
        return error.connection_invalidated or state in _ROLLED_BACK | _AWAY
    if isinstance(error, asyncpg.PostgresError):
        return error.sqlstate in _ROLLED_BACK | _AWAY
    return isinstance(error, ConnectionError)


def terminate(connection: asyncpg.Connection) -> None:
    """Leave *connection* behind without a word: it may be to a server that answers nothing."""
    if not connection.is_closed():
        connection.terminate()


async def is_alive(connection: asyncpg.Connection, *, within_seconds: float) -> bool:
    try:
        async with asyncio.timeout(within_seconds):
            await connection.fetchval("SELECT 1")
    except FAULTS:
        return False
    return True
