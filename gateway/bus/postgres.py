"""Hints over PostgreSQL: whoever commits says up to where the log goes, and whoever listens looks.

announce(page) ─┬─▶ listeners here, with the page
                └─▶ NOTIFY head ─▶ the other processes ─▶ their listeners, without
                    one at a time: what is announced meanwhile is said by the next
"""

import asyncio
from collections.abc import Callable
from typing import Self

import asyncpg
import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random

from gateway.bus.memory import MemoryBus
from gateway.events import Cursor, Page
from gateway.storage.engines.postgres.server import FAULTS, connect, is_alive, terminate

CHANNEL = "arrw_gateway_log"
QUIET_SECONDS = 5.0
"""After so long without news it sees whether the server is there still."""

_log = structlog.get_logger(__name__)


class PostgresBus:
    """Over a connection of its own, which is made anew when it breaks. Meanwhile listeners look by themselves."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._here = MemoryBus()
        self._head = Cursor(0)
        self._news = asyncio.Event()
        self.listening = asyncio.Event()
        """Set while others are heard."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="postgres-bus")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    def announce(self, page: Page) -> None:
        self._here.announce(page)
        self._head = page.last
        self._news.set()

    def listen(self, listener: Callable[[Page | None], None]) -> Callable[[], None]:
        return self._here.listen(listener)

    async def _run(self) -> None:
        kept_up = AsyncRetrying(
            retry=retry_if_exception_type(FAULTS), wait=wait_random(0.1, 1), before_sleep=_log_fault, reraise=True
        )
        await kept_up(self._serve)

    async def _serve(self) -> None:
        """Until the connection breaks."""
        connection = await connect(self._url)
        try:
            connection.add_termination_listener(lambda _: self._news.set())
            await connection.add_listener(CHANNEL, self._heard)
            self.listening.set()
            self._here.tell(None)  # what was said before nobody heard here
            while True:
                await self._speak(connection)
        finally:
            self.listening.clear()
            terminate(connection)

    async def _speak(self, connection: asyncpg.Connection) -> None:
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                await self._news.wait()
        except TimeoutError:
            if not await is_alive(connection, within_seconds=QUIET_SECONDS):
                raise ConnectionResetError("the server does not answer") from None
            return
        self._news.clear()
        if connection.is_closed():
            raise ConnectionResetError("the server has closed the connection")
        await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, str(self._head), timeout=QUIET_SECONDS)

    def _heard(self, connection: asyncpg.Connection, pid: int, _channel: str, _head: object) -> None:
        if pid != connection.get_server_pid():  # what was said here has been heard here
            self._here.tell(None)


def _log_fault(state: RetryCallState) -> None:
    if state.attempt_number == 1:
        _log.warning("bus.away", error=repr(state.outcome.exception()) if state.outcome else None)
