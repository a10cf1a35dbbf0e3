"""Messages of a WebSocket stream: JSON objects that say by their `type` what they are.

An event is carried with its data byte for byte as it was published. All of it is UTF-8, as a text message has to be.
"""

import json
from dataclasses import dataclass

from gateway.events import LoggedEvent
from gateway.streams.sinks import Transport
from gateway.times import to_rfc3339


@dataclass(frozen=True, slots=True)
class SocketEncoding:
    """How a WebSocket is written to. Ends are told by close codes, heartbeats are pings: both are the connection's."""

    @property
    def transport(self) -> Transport:
        return "websocket"

    def event(self, event: LoggedEvent, cursor: str) -> bytes:
        return (
            b'{"type":"event","event_type":"%b","id":"%b","cursor":"%b","library_id":"%b","timestamp":"%b","data":%b}'
            % (
                event.type.encode(),
                event.id.encode(),
                cursor.encode(),
                event.library_id.encode(),
                to_rfc3339(event.timestamp).encode(),
                event.data,
            )
        )

    def opening(self, retry_ms: int) -> bytes:
        return b""

    def checkpoint(self, cursor: str) -> bytes:
        """Up to here nothing is missing."""
        return json.dumps({"type": "checkpoint", "cursor": cursor}).encode()

    def heartbeat(self) -> bytes:
        return b""

    def gap(self, *, cursor: str, requested: str, earliest: str | None) -> bytes:
        """What the reader asked for is not there; it goes on from *cursor*, just before the *earliest*."""
        told = {"type": "gap", "requested": requested, "earliest": earliest, "cursor": cursor}
        return json.dumps(told).encode()

    def expired(self, reason: str) -> bytes:
        return b""

    def farewell(self, retry_ms: int) -> bytes:
        return b""
