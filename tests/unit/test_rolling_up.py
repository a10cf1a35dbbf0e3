"""The rollups' background: it goes on until nothing is left, and comes back after a database that was away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime

from structlog.testing import capture_logs

from gateway.errors import StorageUnavailable
from gateway.upkeep.rolling_up import RollingUp
from tests.builders import NOON
from tests.until import until


class Shelf:
    """Has so much to fold and to drop; is away when told to."""

    def __init__(self, *, tallies: int = 0, old: int = 0, away: bool = False) -> None:
        self.tallies, self.old, self.away = tallies, old, away
        self.gathered = 0
        self.asked_at: list[datetime] = []

    async def gather(self) -> tuple[int, bool]:
        if self.away:
            self.away = False
            raise StorageUnavailable("the disk is away")
        self.gathered = min(self.tallies, 2)
        return self.gathered, self.tallies > self.gathered

    async def fold(self) -> bool:
        if not self.gathered:  # more often than it was told to
            return False
        self.gathered -= 1
        self.tallies -= 1
        return True

    async def drop_old(self, now: datetime) -> bool:
        self.asked_at.append(now)
        self.old -= 1
        return self.old >= 0


@asynccontextmanager
async def rolling(shelf: Shelf) -> AsyncIterator[None]:
    task = asyncio.create_task(RollingUp(shelf, clock=lambda: NOON, fold_seconds=0, pause_seconds=0).run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_all_is_folded_and_what_is_old_dropped() -> None:
    shelf = Shelf(tallies=5, old=3)
    async with rolling(shelf):
        await until(lambda: shelf.tallies == 0 and shelf.old < 0)
    assert set(shelf.asked_at) == {NOON}


async def test_a_database_that_was_away_is_asked_again() -> None:
    shelf = Shelf(tallies=2, away=True)
    with capture_logs() as logs:
        async with rolling(shelf):
            await until(lambda: shelf.tallies == 0)
    assert [entry["event"] for entry in logs] == ["rolling_up.waiting"]
