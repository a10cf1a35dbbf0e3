"""Who sends what is owed, as everybody else sees it, and how it is where no other process may.

Sending ─┬─ AloneSending ─── SQLite: a dispatcher for all lanes
         ├─ SharedSending ── PostgreSQL: a dispatcher for the lanes that this process owns (gateway/sharing.py)
         └─ NotSending ───── a process without that role: it tells the others
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from gateway.ports.nodes import HintKind
from webhooks.deliveries import Delivery
from webhooks.dispatcher import Dispatcher

Say = Callable[[HintKind, Iterable[str]], None]


class Sending(Protocol):
    """`run` it in a task, then `drain` it."""

    @property
    def lanes(self) -> int:
        """Lanes that are awake here."""

    @property
    def in_flight(self) -> int:
        """Attempts under way here."""

    def wake(self, endpoint_ids: Iterable[str]) -> None:
        """These endpoints have new deliveries, or may have."""

    def offer(self, fresh: Mapping[str, Sequence[Delivery]]) -> None:
        """By endpoint: deliveries that have just been stored, and are due."""

    def is_stuck(self, endpoint_id: str) -> bool:
        """Whether its lane has been full for a while, as far as is known here."""

    def changed(self, endpoint_id: str) -> None:
        """An endpoint, or something that it is owed, was changed by somebody who asked this process."""

    def noticed(self, endpoint_id: str) -> None:
        """The same, as the log says: all processes hear of it."""

    async def drain(self) -> None:
        """Start nothing more, and end with the attempts in flight, within seconds."""

    async def run(self) -> None:
        """Until it is drained or cancelled."""


class AloneSending:
    """A dispatcher; a new one after a fault of ours has ended it."""

    def __init__(self, make: Callable[[], Dispatcher]) -> None:
        self._make = make
        self._dispatcher = make()
        self._draining = False

    @property
    def lanes(self) -> int:
        return self._dispatcher.lanes

    @property
    def in_flight(self) -> int:
        return self._dispatcher.in_flight

    def wake(self, endpoint_ids: Iterable[str]) -> None:
        self._dispatcher.wake(endpoint_ids)

    def offer(self, fresh: Mapping[str, Sequence[Delivery]]) -> None:
        self._dispatcher.offer(fresh)

    def is_stuck(self, endpoint_id: str) -> bool:
        return self._dispatcher.is_stuck(endpoint_id)

    def changed(self, endpoint_id: str) -> None:
        self._dispatcher.changed(endpoint_id)

    def noticed(self, endpoint_id: str) -> None:
        self._dispatcher.changed(endpoint_id)

    async def drain(self) -> None:
        self._draining = True
        await self._dispatcher.drain()

    async def run(self) -> None:
        try:
            await self._dispatcher.run()
        finally:
            if not self._draining:
                self._dispatcher = self._make()


class NotSending:
    """Passes on what it hears. *say* tells the processes that do send; None: there are none."""

    lanes = 0
    in_flight = 0

    def __init__(self, say: Say | None) -> None:
        self._say: Say = say or (lambda _kind, _ids: None)
        self._drained = asyncio.Event()

    def wake(self, endpoint_ids: Iterable[str]) -> None:
        self._say("wake", endpoint_ids)

    def offer(self, fresh: Mapping[str, Sequence[Delivery]]) -> None:
        self._say("wake", fresh)

    def is_stuck(self, _endpoint_id: str) -> bool:
        return False

    def changed(self, endpoint_id: str) -> None:
        self._say("changed", [endpoint_id])

    def noticed(self, endpoint_id: str) -> None:
        """Who sends hears it from the log."""

    async def drain(self) -> None:
        self._drained.set()

    async def run(self) -> None:
        await self._drained.wait()
