"""PostgreSQL as the gateway uses it: how its connections are made, how long one may hold up others, what ails one."""

import asyncio
from collections.abc import Mapping

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

CONNECT_SECONDS = 5
CONNECTIONS = 8
"""Of each kind: those that write, and those that only read."""
WORK_SECONDS = 30
"""One piece of work at most, from its first statement to its last: a server that has stopped answers nothing at all."""

FAULTS = (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
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
READERS = {"default_transaction_isolation": "repeatable read", "default_transaction_read_only": "on"}
"""They only read, each transaction one state throughout."""
WRITERS = {"default_transaction_isolation": "read committed", "enable_seqscan": "off"}
"""Each statement sees what was committed before it. What was prepared while a table was small goes by its index, too,
and not through all of it until the server has counted its rows anew."""
STATEMENTS_KEPT = 500
"""Prepared by a connection: those that are sent time and again."""


async def connect(url: str, settings: Mapping[str, str] | None = None) -> asyncpg.Connection:
    """A connection of its own. *url* is understood as libpq does: `sslmode`, several hosts and the rest.

    Raises:
        asyncpg.PostgresError, asyncpg.InterfaceError, OSError: see `FAULTS`.
    """
    return await asyncpg.connect(
        url,
        timeout=CONNECT_SECONDS,
        server_settings={**_EVERY_SESSION, **(settings or {})},
        statement_cache_size=STATEMENTS_KEPT,
        max_cached_statement_lifetime=0,  # for as long as the connection
    )


def as_alchemy(url: str) -> AsyncEngine:
    """A connection that writes, by way of SQLAlchemy, which migrations need."""
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect(url, WRITERS),
        poolclass=NullPool,
        hide_parameters=True,  # they may be secrets, and errors are logged
    )


def may_be_repeated(error: BaseException) -> bool:
    """Whether work that failed so, before its commit, may succeed if it is done again at once."""
    if isinstance(error, asyncpg.InvalidCachedStatementError):  # prepared before another process migrated the tables
        return True
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
