"""Server-Sent Events as the WHATWG's HTML standard, section 9.2, writes them.

A stream is lines; a field is `name: value`; an empty line ends a frame. So nothing that is written into a field may
hold the end of a line, and every writer here sees to that, whoever checked the value before.
"""

import json
import re
from dataclasses import dataclass
from typing import Final

from gateway.events import LoggedEvent
from gateway.streams.sinks import Transport

MEDIA_TYPE: Final = "text/event-stream"
COMMENT: Final = b":\n\n"
_LINE_ENDS: Final = re.compile(rb"\r\n|\r|\n")
_UNWRITABLE: Final = re.compile(r"[\r\n\0]")


def field(name: bytes, value: str) -> bytes:
    """One line of *value*. What a line cannot hold, or would make a reader drop it (NUL in an id), becomes U+FFFD."""
    if _UNWRITABLE.search(value):
        value = _UNWRITABLE.sub("�", value)
    return b"%b: %b\n" % (name, value.encode("utf-8", "replace"))


def data(value: bytes) -> bytes:
    r"""The lines of *value*, split at `\r\n`, `\r` and `\n`; a reader gets them back joined with `\n`."""
    if b"\n" not in value and b"\r" not in value:
        return b"data: %b\n" % value
    return b"".join(b"data: %b\n" % line for line in _LINE_ENDS.split(value))


def frame(*, value: bytes | None = None, event: str | None = None, cursor: str | None = None) -> bytes:
    """A whole frame, of the fields that are given."""
    return b"".join(
        (
            b"" if cursor is None else field(b"id", cursor),
            b"" if event is None else field(b"event", event),
            b"" if value is None else data(value),
            b"\n",
        )
    )


@dataclass(frozen=True, slots=True)
class SseEncoding:
    """How EventSource is written to. Not `named`: without `event:`, so that `onmessage` gets everything."""

    named: bool = True

    @property
    def transport(self) -> Transport:
        return "sse"

    def event(self, event: LoggedEvent, cursor: str) -> bytes:
        return frame(value=event.body, event=event.type if self.named else None, cursor=cursor)

    def opening(self, retry_ms: int) -> bytes:
        """Something at once, so that proxies and readers see that it has begun."""
        return b"retry: %d\n: arrw gateway\n\n" % retry_ms

    def checkpoint(self, cursor: str) -> bytes:
        """Moves the reader's cursor; without data nothing fires."""
        return frame(cursor=cursor)

    def heartbeat(self) -> bytes:
        return COMMENT

    def gap(self, *, cursor: str, requested: str, earliest: str | None) -> bytes:
        """What the reader asked for is not there; it goes on from *cursor*, just before the *earliest*."""
        told = json.dumps({"requested": requested, "earliest": earliest}).encode()
        return frame(value=told, event="gateway.gap" if self.named else None, cursor=cursor)

    def expired(self, reason: str) -> bytes:
        told = json.dumps({"reason": reason}).encode()
        return frame(value=told, event="gateway.expired" if self.named else None)

    def farewell(self, retry_ms: int) -> bytes:
        """When to come back."""
        return b"retry: %d\n\n" % retry_ms
