"""What happened: the event as a publisher drafts it, as the log keeps it, and as it is written for readers."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from typing import Any, ClassVar, NewType

from gateway.times import as_utc, to_rfc3339

Cursor = NewType("Cursor", int)
"""An event's place in the log, from 1. Zero is the place before the first event."""

GATEWAY_LIBRARY = "gateway"
GATEWAY_PREFIX = "gateway."


class EventType(str):
    """The dotted name of an event's type. Open: any well-formed name is one; the names below are those arrwDB uses."""

    __slots__ = ()

    LIBRARY_CREATED: ClassVar["EventType"]
    LIBRARY_DELETED: ClassVar["EventType"]
    DOCUMENT_ADDED: ClassVar["EventType"]
    DOCUMENT_DELETED: ClassVar["EventType"]
    SEARCH_PERFORMED: ClassVar["EventType"]
    CUSTOM: ClassVar["EventType"]

    @property
    def value(self) -> str:
        """The bare name, as an enum member would give it."""
        return str(self)

    def __str__(self) -> str:
        return str.__str__(self)


EventType.LIBRARY_CREATED = EventType("library.created")
EventType.LIBRARY_DELETED = EventType("library.deleted")
EventType.DOCUMENT_ADDED = EventType("document.added")
EventType.DOCUMENT_DELETED = EventType("document.deleted")
EventType.SEARCH_PERFORMED = EventType("search.performed")
EventType.CUSTOM = EventType("custom")


@dataclass(frozen=True, init=False, eq=False)
class Event:
    """An event for programs in this process: what they publish, and what their handlers are given.

    `timestamp` is when it happened; a naive one is UTC. `id` is the idempotency key, made at publishing when left out.
    `cursor` and `accepted_at` are the log's to give.
    """

    type: EventType
    library_id: str
    data: Mapping[str, Any]
    timestamp: datetime | None
    id: str | None
    cursor: Cursor | None
    accepted_at: datetime | None

    def __init__(
        self,
        *,
        type: str,  # noqa: A002 - the field is named so
        library_id: str | uuid.UUID,
        data: Mapping[str, Any] | None = None,
        timestamp: datetime | None = None,
        id: str | None = None,  # noqa: A002 - likewise
        cursor: Cursor | None = None,
        accepted_at: datetime | None = None,
    ) -> None:
        fill = partial(object.__setattr__, self)  # the value is frozen from here on
        fill("type", EventType(type))
        fill("library_id", str(library_id) if isinstance(library_id, uuid.UUID) else library_id)
        fill("data", {} if data is None else data)
        fill("timestamp", None if timestamp is None else as_utc(timestamp))
        fill("id", id)
        fill("cursor", cursor)
        fill("accepted_at", accepted_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A checked event on its way into the log.

    `data` is a JSON object as the publisher wrote it, less its white space. `audience` belongs to the gateway's own
    events: the libraries a reader must hold to see one, or None when only readers of all libraries may.
    """

    id: str
    type: EventType
    library_id: str
    data: bytes
    timestamp: datetime | None = None
    traceparent: str | None = None
    audience: frozenset[str] | None = None
    id_is_own: bool = False
    """Whether the publisher chose the id. One the gateway just made cannot be in the log yet."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoggedEvent:
    """An event in the log, unchanged for as long as it is there."""

    cursor: Cursor
    id: str
    type: EventType
    library_id: str
    timestamp: datetime
    accepted_at: datetime
    data: bytes
    traceparent: str | None = None
    audience: frozenset[str] | None = None

    @cached_property
    def body(self) -> bytes:
        """The event's JSON: what receivers are sent and readers see, byte for byte the same every time."""
        return b'{"id":"%b","type":"%b","library_id":"%b","timestamp":"%b","data":%b}' % (
            self.id.encode(),
            self.type.encode(),
            self.library_id.encode(),
            to_rfc3339(self.timestamp).encode(),
            self.data,
        )

    @property
    def is_gateways_own(self) -> bool:
        return self.type.startswith(GATEWAY_PREFIX)


def accepted(draft: Draft, cursor: Cursor, at: datetime) -> LoggedEvent:
    """*draft* as the log keeps it."""
    return LoggedEvent(
        cursor=cursor,
        id=draft.id,
        type=draft.type,
        library_id=draft.library_id,
        timestamp=draft.timestamp or at,
        accepted_at=at,
        data=draft.data,
        traceparent=draft.traceparent,
        audience=draft.audience,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Consecutive events: all that the log holds after `after`, up to and including `last`."""

    after: Cursor
    events: tuple[LoggedEvent, ...]

    @property
    def last(self) -> Cursor:
        return self.events[-1].cursor if self.events else self.after


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where the log stands. `earliest` is the first cursor it still holds, `head + 1` when it holds none."""

    epoch: str
    head: Cursor
    earliest: Cursor

    def write(self, cursor: Cursor) -> str:
        """*cursor* as clients see it: opaque, and good for this log alone."""
        return f"{self.epoch}-{cursor}"

    def read(self, text: str) -> Cursor | None:
        """The cursor that *text* names, or None: another log's, one that was dropped, or one never given out."""
        epoch, dash, number = text.rpartition("-")
        if not dash or epoch != self.epoch or len(number) > 18 or not (number.isascii() and number.isdigit()):
            return None
        cursor = Cursor(int(number))
        return cursor if self.earliest - 1 <= cursor <= self.head else None
