"""Time as lanes see it: the present moment, and waiting for something to happen or a moment to come."""

import asyncio
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The present moment, aware and in UTC."""

    async def wait(self, event: asyncio.Event, until: datetime | None) -> None:
        """Return once *event* is set or *until* has come (None: never), whichever is first."""


class SystemClock:
    """The machine's own."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def wait(self, event: asyncio.Event, until: datetime | None) -> None:
        try:
            async with asyncio.timeout(None if until is None else (until - self.now()).total_seconds()):
                await event.wait()
        except TimeoutError:
            return
