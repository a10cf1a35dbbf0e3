"""Rows of the events table as values and back, and how many fit into a budget of bytes."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, TypeVar

from sqlalchemy import Row

from gateway.events import EventType, LoggedEvent
from gateway.storage.tables import events

K = TypeVar("K")


def logged(row: Row[Any]) -> LoggedEvent:
    return LoggedEvent(
        cursor=row.cursor,
        id=row.id,
        type=EventType(row.type),
        library_id=row.library_id,
        timestamp=row.timestamp,
        accepted_at=row.accepted_at,
        data=row.data,
        traceparent=row.traceparent,
        audience=row.audience,
    )


_COLUMNS = tuple(column.name for column in events.c)
_values_of = attrgetter(*_COLUMNS)


def row_of(event: LoggedEvent) -> dict[str, Any]:
    return dict(zip(_COLUMNS, _values_of(event), strict=True))


def within(sizes: Sequence[tuple[K, int]], max_bytes: int) -> K | None:
    """The last key of *sizes* (key, bytes) that fits into *max_bytes* with all before it; the first fits always."""
    last: K | None = None
    total = 0
    for key, size in sizes:
        total += size
        if last is not None and total > max_bytes:
            break
        last = key
    return last
