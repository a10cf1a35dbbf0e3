"""In the background: add what was settled to the rollups, and drop the oldest of them, a little at a time."""

import asyncio
from datetime import datetime
from typing import Protocol

import structlog

from gateway.errors import StorageUnavailable
from gateway.times import Clock

FOLD_SECONDS = 5.0
"""Until then who asks reads tallies too; more often, the same rollups would be written again and again."""

_logger = structlog.get_logger(__name__)


class Folds(Protocol):
    async def fold(self) -> bool:
        """Add some of what was settled to the rollups, in a short transaction. False: there was nothing to add."""

    async def drop_old(self, now: datetime) -> bool:
        """Drop some rollups that were kept for long enough, likewise. False: there are none."""


class RollingUp:
    def __init__(self, rollups: Folds, *, clock: Clock, fold_seconds: float = FOLD_SECONDS) -> None:
        self._rollups = rollups
        self._clock = clock
        self._fold_seconds = fold_seconds

    async def run(self) -> None:
        while True:
            try:
                while await self._rollups.fold():
                    pass
                while await self._rollups.drop_old(self._clock()):
                    pass
            except StorageUnavailable as error:
                _logger.warning("rolling_up.waiting", error=error.detail)
            await asyncio.sleep(self._fold_seconds)
