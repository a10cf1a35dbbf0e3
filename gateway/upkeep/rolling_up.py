"""In the background: add what was settled to the rollups, and drop the oldest of them, a little at a time."""

import asyncio
from datetime import datetime
from typing import Protocol

import structlog

from gateway.errors import StorageUnavailable
from gateway.times import Clock

FOLD_SECONDS = 15.0
"""Until then who asks reads tallies too; more often, the same rollups would be written again and again."""
PAUSE_SECONDS = 0.02
"""Between two transactions, so that publishers do not find the writer taken each time."""

_logger = structlog.get_logger(__name__)


class Folds(Protocol):
    async def gather(self) -> tuple[int, bool]:
        """Put some of what was settled together, in a short transaction, so that `fold` has less to do. How many times
        it has to be called for that, and whether there is more to gather then."""

    async def fold(self) -> bool:
        """Add some of what was settled to the rollups, likewise. False: there was nothing to add."""

    async def drop_old(self, now: datetime) -> bool:
        """Drop some rollups that were kept for long enough, likewise. False: there are none."""


class RollingUp:
    def __init__(
        self,
        rollups: Folds,
        *,
        clock: Clock,
        fold_seconds: float = FOLD_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._rollups = rollups
        self._clock = clock
        self._fold_seconds = fold_seconds
        self._pause_seconds = pause_seconds

    async def run(self) -> None:
        while True:
            try:
                await self._fold_all()
                await self._drop_all()
            except StorageUnavailable as error:
                _logger.warning("rolling_up.waiting", error=error.detail)
            await asyncio.sleep(self._fold_seconds)

    async def _fold_all(self) -> None:
        """What comes meanwhile is left for the next time."""
        has_more = True
        while has_more:
            times, has_more = await self._rollups.gather()
            for _ in range(times):
                await self._rollups.fold()
                await asyncio.sleep(self._pause_seconds)

    async def _drop_all(self) -> None:
        has_more = True
        while has_more:
            has_more = await self._rollups.drop_old(self._clock())
            await asyncio.sleep(self._pause_seconds)
