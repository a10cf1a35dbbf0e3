"""A channel of PostgreSQL: LISTEN and NOTIFY, over a connection of its own that is made anew when it breaks."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Self

import asyncpg
import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random

from gateway.storage.engines.postgres.server import FAULTS, connect, is_alive, terminate

QUIET_SECONDS = 5.0
"""After so long without news it sees whether the server is there still."""

_log = structlog.get_logger(__name__)


class Channel:
    """*heard* is called with each message of another process; with None once it can hear, for that something may have
    been said before. *to_say* answers what there is to say when it is this channel's turn to speak."""

    def __init__(
        self, url: str, name: str, *, heard: Callable[[str | None], None], to_say: Callable[[], Iterable[str]]
    ) -> None:
        self._url = url
        self._name = name
        self._tell = heard
        self._to_say = to_say
        self._news = asyncio.Event()
        self.listening = asyncio.Event()
        """Set while others are heard."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"channel-{self._name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    def speak(self) -> None:
        """There is something to say."""
        self._news.set()

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
            await connection.add_listener(self._name, self._heard)
            self.listening.set()
            self._tell(None)  # what was said before nobody heard here
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
        for text in self._to_say():
            await connection.execute("SELECT pg_notify($1, $2)", self._name, text, timeout=QUIET_SECONDS)

    def _heard(self, connection: asyncpg.Connection, pid: int, _channel: str, text: object) -> None:
        if pid != connection.get_server_pid():  # what was said here has been heard here
            self._tell(str(text))


def _log_fault(state: RetryCallState) -> None:
    if state.attempt_number == 1:
        _log.warning("bus.away", error=repr(state.outcome.exception()) if state.outcome else None)
