"""The live bus of one process: an announcement is a call."""

from collections.abc import Callable
from typing import Self

import structlog

from gateway.events import Page

_log = structlog.get_logger(__name__)


class MemoryBus:
    """Hands each committed page to every listener, at once and in order, on the event loop that announces it."""

    def __init__(self) -> None:
        self._listeners: dict[object, Callable[[Page | None], None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def announce(self, page: Page) -> None:
        self.tell(page)

    def tell(self, page: Page | None) -> None:
        """What another bus has heard, to the listeners in this process."""
        for listener in tuple(self._listeners.values()):
            try:
                listener(page)
            except Exception:  # noqa: BLE001 - a listener is a stranger: its bug is logged, and harms no neighbour
                _log.exception("bus.listener_failed", listener=getattr(listener, "__qualname__", repr(listener)))

    def listen(self, listener: Callable[[Page | None], None]) -> Callable[[], None]:
        ticket = object()
        self._listeners[ticket] = listener

        def unlisten() -> None:
            self._listeners.pop(ticket, None)

        return unlisten
