"""Waiting for a thing, not for a time."""

import asyncio
from collections.abc import Callable

TIMEOUT_SECONDS = 30


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until *condition* holds."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not condition():  # noqa: ASYNC110 - a condition of anything, and no time between two looks
            await asyncio.sleep(0)
