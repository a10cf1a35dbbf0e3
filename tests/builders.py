"""Things to test with. Each builder takes what matters to a test and makes up the rest."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from typeid import TypeID

from gateway.events import Cursor, Draft, EventType, LoggedEvent, Page

NOON = datetime(2025, 10, 27, 12, 0, tzinfo=UTC)


def a_draft(
    *,
    id: str | None = None,  # noqa: A002 - the field is named so
    type: str = "document.added",  # noqa: A002 - likewise
    library_id: str = "books",
    data: bytes = b"{}",
    timestamp: datetime | None = None,
    traceparent: str | None = None,
    audience: frozenset[str] | None = None,
) -> Draft:
    return Draft(
        id=id or str(TypeID("evt")),
        type=EventType(type),
        library_id=library_id,
        data=data,
        timestamp=timestamp,
        traceparent=traceparent,
        audience=audience,
        id_is_own=id is not None,
    )


def an_event(
    *,
    cursor: int = 1,
    id: str | None = None,  # noqa: A002 - the field is named so
    type: str = "document.added",  # noqa: A002 - likewise
    library_id: str = "books",
    data: bytes = b"{}",
    timestamp: datetime = NOON,
    accepted_at: datetime = NOON,
    audience: frozenset[str] | None = None,
) -> LoggedEvent:
    return LoggedEvent(
        cursor=Cursor(cursor),
        id=id or f"evt_{cursor}",
        type=EventType(type),
        library_id=library_id,
        timestamp=timestamp,
        accepted_at=accepted_at,
        data=data,
        audience=audience,
    )


def a_page(events: Sequence[LoggedEvent]) -> Page:
    """The page that consists of *events*, at least one."""
    return Page(after=Cursor(events[0].cursor - 1), events=tuple(events))


@dataclass(slots=True)
class HandClock:
    """A clock that moves when it is told to."""

    moment: datetime = field(default=NOON)

    def __call__(self) -> datetime:
        return self.moment

    def advance(self, *, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)
