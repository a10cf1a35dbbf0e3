"""Wait for the thing itself, not for a while."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

EVERY_SECONDS = 0.02


async def eventually(
    probe: Callable[[], T | None], what: str, *, within: float = 20, every: float = EVERY_SECONDS
) -> T:
    """What *probe* answers once that is true; asked again every few milliseconds, as other processes tell nobody.

    Raises:
        AssertionError: *what* did not come about *within* so many seconds.
    """

    async def ask() -> T | None:
        return probe()

    return await eventually_answered(ask, what, within=within, every=every)


async def eventually_answered(
    ask: Callable[[], Awaitable[T | None]], what: str, *, within: float = 20, every: float = EVERY_SECONDS
) -> T:
    """The same for what has to be asked of the gateway."""
    deadline = time.monotonic() + within
    while not (answer := await ask()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what} (last seen: {answer!r})")
        await asyncio.sleep(every)
    return answer
