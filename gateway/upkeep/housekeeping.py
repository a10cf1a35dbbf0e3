"""What nobody waits for: settling what deleted subscriptions still owed, a little at a time."""

import asyncio
from typing import Protocol

import structlog

from gateway.errors import StorageUnavailable
from gateway.events import Page

LOOK_SECONDS = 60.0
"""A restart in the middle is made good after so long at the latest."""
RETRY_SECONDS = 1.0
ROWS_AT_ONCE = 500

_logger = structlog.get_logger(__name__)


class Orphanage(Protocol):
    async def cancel_orphans(self, limit: int) -> int:
        """Cancel up to *limit* deliveries that deleted subscriptions still owed; how many it were."""


class Housekeeping:
    """Runs beside everything else; the tail tells it when there is work."""

    def __init__(self, orphans: Orphanage, *, deleted: str, look_seconds: float = LOOK_SECONDS) -> None:
        self._orphans = orphans
        self._deleted = deleted
        self._look_seconds = look_seconds
        self._news = asyncio.Event()

    def feed(self, page: Page) -> None:
        if any(event.type == self._deleted for event in page.events):
            self._news.set()

    async def run(self) -> None:
        while True:
            self._news.clear()
            try:
                while await self._orphans.cancel_orphans(ROWS_AT_ONCE):
                    pass
            except StorageUnavailable as error:
                _logger.warning("housekeeping.waiting", error=error.detail)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            try:
                async with asyncio.timeout(self._look_seconds):
                    await self._news.wait()
            except TimeoutError:
                pass
