"""What a stream writes to, and in which words: the two ports between the hub and the outside.

A kind of reader (EventSource, WebSocket) is an encoding; a way to reach one (a detached connection, plain ASGI) is a
sink. Neither knows of the other.
"""

from typing import Protocol

from gateway.streams.hub import Encoding, Sheet


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

    def end(self, sheet: Sheet) -> None:
        """Write *sheet*, then end the response properly; a reader that does not take it is cut off soon."""

    def abort(self) -> None:
        """Close the connection now."""


class StreamEncoding(Encoding, Protocol):
    """What a stream says beside events. Empty bytes: this kind of reader is told in some other way."""

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

    def end(self, sheet: Sheet) -> None:
        pass

    def abort(self) -> None:
        pass


NOWHERE = _Nowhere()
