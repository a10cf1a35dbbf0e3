"""Hints over PostgreSQL: whoever commits says up to where the log goes, and whoever listens looks.

announce(page) ─┬─▶ listeners here, with the page
                └─▶ NOTIFY head ─▶ the other processes ─▶ their listeners, without
                    one at a time: what is announced meanwhile is said by the next
"""

import asyncio
from collections.abc import Callable
from typing import Self

from gateway.bus.channel import Channel
from gateway.bus.memory import MemoryBus
from gateway.events import Cursor, Page

CHANNEL = "arrw_gateway_log"


class PostgresBus:
    """Over a connection of its own, which is made anew when it breaks. Meanwhile listeners look by themselves."""

    def __init__(self, url: str) -> None:
        self._here = MemoryBus()
        self._head = Cursor(0)
        self._channel = Channel(url, CHANNEL, heard=self._heard, to_say=lambda: [str(self._head)])

    @property
    def listening(self) -> asyncio.Event:
        """Set while others are heard."""
        return self._channel.listening

    async def __aenter__(self) -> Self:
        await self._channel.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.__aexit__()

    def announce(self, page: Page) -> None:
        self._here.announce(page)
        self._head = page.last
        self._channel.speak()

    def listen(self, listener: Callable[[Page | None], None]) -> Callable[[], None]:
        return self._here.listen(listener)

    def _heard(self, _head: str | None) -> None:
        self._here.tell(None)
