"""What a stream writes to, and in which words: the two ports between the hub and the outside.

A kind of reader (EventSource, WebSocket) is an encoding; a way to reach one (a detached connection, plain ASGI) is a
sink. Neither knows of the other.
"""

from enum import StrEnum
from typing import Literal, Protocol

from gateway.streams.hub import Encoding, Sheet

Transport = Literal["sse", "websocket"]


class End(StrEnum):
    """Why a stream is over."""

    ENDED = "ended"
    """By an admin."""
    DRAINED = "drained"
    """The gateway is stopping."""
    EXPIRED = "expired"
    """Its token has run out."""
    REVOKED = "revoked"
    """So has its key."""
    LOG_UNREADABLE = "log_unreadable"
    TOO_SLOW = "too_slow"
    DISCONNECTED = "disconnected"
    NEVER_BEGAN = "never_began"


class Reader(Protocol):
    """The stream, as its sink knows it."""

    def became_busy(self) -> None: ...

    def became_ready(self) -> None: ...

    def went_away(self) -> None:
        """The connection is lost, for whatever reason. Nothing more can be written."""

    def server_stops(self) -> None:
        """The server is stopping, and waits for its connections to end."""


class Sink(Protocol):
    """The way to one reader. It tells its stream `became_busy`, `became_ready`, and at the end, once, `went_away`."""

    @property
    def is_busy(self) -> bool:
        """More than enough waits to be taken by the reader."""

    def write(self, sheet: Sheet) -> None:
        """Takes *sheet* whatever happens; never blocks, never raises. When it is lost, `went_away` follows."""

    def end(self, sheet: Sheet, why: End) -> None:
        """Write *sheet*, then end the response properly; a reader that does not take it is cut off soon."""

    def cut_off(self, why: End) -> None:
        """End what takes nothing any more, without waiting for it."""


class StreamEncoding(Encoding, Protocol):
    """What a stream says beside events. Empty bytes: this kind of reader is told in some other way."""

    @property
    def transport(self) -> Transport: ...

    def opening(self, retry_ms: int) -> bytes: ...

    def checkpoint(self, cursor: str) -> bytes: ...

    def heartbeat(self) -> bytes: ...

    def gap(self, *, cursor: str, requested: str, earliest: str | None) -> bytes: ...

    def expired(self, reason: str) -> bytes: ...

    def farewell(self, retry_ms: int) -> bytes: ...


class _Nowhere:
    """The sink of a stream that has none: before its response has started, and after its end."""

    is_busy = False

    def write(self, sheet: Sheet) -> None:
        pass

    def end(self, sheet: Sheet, why: End) -> None:
        pass

    def cut_off(self, why: End) -> None:
        pass


NOWHERE = _Nowhere()
