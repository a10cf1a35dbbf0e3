"""Tasks that run for as long as the gateway does: whatever ends one is logged, and it is started again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

RESTART_SECONDS = 1.0

_logger = structlog.get_logger(__name__)


@asynccontextmanager
async def running(name: str, run: Callable[[], Awaitable[None]]) -> AsyncIterator[asyncio.Task[None]]:
    """Run *run* beside the body, again and again if it has to be; cancelled and awaited at the end."""
    task = asyncio.create_task(_kept_up(name, run), name=name)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _kept_up(name: str, run: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await run()
            return
        except Exception:
            _logger.exception("task.failed", task=name)
            await asyncio.sleep(RESTART_SECONDS)
