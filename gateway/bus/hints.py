"""Hints about lanes over PostgreSQL, whichever bus carries the events: who owns a lane hears of its work at once.

say(hint) ──▶ joined with what waits ──▶ NOTIFY ──▶ the other processes
"""

from collections.abc import Callable, Iterable
from typing import Self

import msgspec
import structlog

from gateway.bus.channel import Channel
from gateway.ports.nodes import HINTS_CHANNEL, Hint, HintKind, hints

MOST_WAITING = 10_000
"""Lanes whose hints wait to be said. What comes beyond is let go: the others look once a second."""

_log = structlog.get_logger(__name__)
_decoder = msgspec.json.Decoder(Hint)


class PostgresHints:
    """`gateway.sending.sharing.Hints`, over a connection of its own."""

    def __init__(self, url: str) -> None:
        self._waiting: dict[HintKind, set[str]] = {}
        self._listener: Callable[[Hint], None] = lambda _: None
        self.channel = Channel(url, HINTS_CHANNEL, heard=self._heard, to_say=self._to_say)

    async def __aenter__(self) -> Self:
        await self.channel.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.__aexit__()

    def say(self, kind: HintKind, endpoint_ids: Iterable[str]) -> None:
        waiting = self._waiting.setdefault(kind, set())
        waiting.update(endpoint_ids)
        if len(waiting) > MOST_WAITING:
            waiting.clear()
        self.channel.speak()

    def listen(self, listener: Callable[[Hint], None]) -> None:
        self._listener = listener

    def _to_say(self) -> Iterable[str]:
        waiting, self._waiting = self._waiting, {}
        for kind, endpoint_ids in waiting.items():
            yield from hints(kind, endpoint_ids)

    def _heard(self, text: str | None) -> None:
        if text is None:
            return
        try:
            self._listener(_decoder.decode(text))
        except msgspec.MsgspecError as error:  # of another version, or somebody else's
            _log.warning("hints.not_understood", error=str(error))
