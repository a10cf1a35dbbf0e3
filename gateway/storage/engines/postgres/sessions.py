"""Who else is at work on a PostgreSQL database: told by the name that gateways give their sessions."""

import asyncio

import asyncpg

CLOSING_SECONDS = 3.0
"""How long the sessions of a gateway that has just ended may still be there."""


async def is_served(connection: asyncpg.Connection) -> bool:
    """Whether a gateway has sessions in the database of *connection*, in whatever schema."""
    try:
        async with asyncio.timeout(CLOSING_SECONDS):
            while await connection.fetchval(_GATEWAYS):  # noqa: ASYNC110 - nothing tells of a session's end
                await asyncio.sleep(0.05)
    except TimeoutError:
        return True
    return False


_GATEWAYS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'arrw-gateway' AND pid <> pg_backend_pid()
"""
