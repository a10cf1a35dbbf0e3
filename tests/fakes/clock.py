"""A clock that stands still until a test moves it."""

import asyncio
import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

START = datetime(2025, 10, 27, 6, 0, tzinfo=UTC)


async def quiet() -> None:
    """Let everything run that can run without time passing."""
    for _ in range(40):
        await asyncio.sleep(0)


async def until(happened: Callable[[], bool]) -> None:
    """Let things run, without time passing, until *happened*."""
    for _ in range(20_000):
        if happened():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not happen")


class FakeClock:
    """`webhooks.clock.Clock`, in virtual time."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self._timers: list[tuple[datetime, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> datetime:
        return self._now

    async def wait(self, event: asyncio.Event, until: datetime | None) -> None:
        happened = asyncio.ensure_future(event.wait())
        waits: set[asyncio.Future[object]] = {happened}  # type: ignore[arg-type]  # a future of bool is one of object
        if until is not None:
            waits.add(self._timer(until))  # type: ignore[arg-type]  # and so is one of None
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            happened.cancel()

    async def sleep(self, seconds: float) -> None:
        await self._timer(self._now + timedelta(seconds=seconds))

    async def quiet(self) -> None:
        """Let everything run that can run without time passing."""
        await quiet()

    async def advance(self, seconds: float) -> None:
        """Move on, stopping at each moment that somebody waits for."""
        target = self._now + timedelta(seconds=seconds)
        await self.quiet()
        while self._timers and self._timers[0][0] <= target:
            moment, _, future = heapq.heappop(self._timers)
            if future.done():
                continue
            self._now = max(self._now, moment)
            future.set_result(None)
            await self.quiet()
        self._now = target
        await self.quiet()

    async def leap(self, seconds: float) -> None:
        """Move on at once, as when the machine was asleep: a day costs no more than a second."""
        self._now += timedelta(seconds=seconds)
        await self.advance(0)

    def _timer(self, moment: datetime) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if moment <= self._now:
            future.set_result(None)
            return future
        self._count += 1
        heapq.heappush(self._timers, (moment, self._count, future))
        return future
