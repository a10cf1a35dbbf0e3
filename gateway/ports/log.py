"""The event log, and the bus that tells other processes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from gateway.errors import Fault
from gateway.events import Cursor, Draft, LoggedEvent, Page, Position
from gateway.filters import Filter
from gateway.listing import Listing


@dataclass(frozen=True, slots=True)
class Receipt:
    """An event's place in the log; `duplicate` when it was there before."""

    id: str
    cursor: Cursor
    duplicate: bool


@dataclass(frozen=True, slots=True)
class IdTaken:
    """The batch holds, at `index`, an id that is in the log (or earlier in the batch) with other content."""

    index: int
    id: str


Appended = tuple[Receipt, ...] | IdTaken


@dataclass(frozen=True, slots=True)
class Misfit:
    """The batch holds data that does not fit the schema of its type: each fault with the index of its event, and a
    pointer that begins at the event."""

    faults: tuple[tuple[int, Fault], ...]


Published = Appended | Misfit


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryQuery:
    """A reader's question about the past. Times are of acceptance: `since` inclusive, `until` exclusive."""

    filter: Filter
    libraries: frozenset[str] | None
    """Those that the caller is confined to; None: all."""
    since: datetime | None = None
    until: datetime | None = None
    after: Cursor | None = None
    """Only events beyond this place, in either order."""
    order: Literal["asc", "desc"] = "desc"
    resume: Cursor | None = None
    """The `more` of the page before."""
    limit: int = 50


class EventLog(Protocol):
    """The ordered, durable log. Cursors are contiguous and in commit order; acceptance times never run backwards."""

    async def position(self) -> Position: ...

    async def append(self, batches: Sequence[Sequence[Draft]]) -> list[Appended]:
        """Append each batch wholly or not at all; durable on return.

        A batch whose id is taken by other content is answered `IdTaken` and harms no other batch. Appending the same
        content again answers the stored event's receipt, unchanged.
        """

    async def read(self, after: Cursor, *, limit: int = 1000, max_bytes: int = 2**20) -> Page:
        """The next events after *after*, at least one if there is any, at most *limit* or about *max_bytes*.

        Places that retention has dropped are passed over: `Page.after` stays *after*.
        """

    async def history(self, query: HistoryQuery) -> Listing[LoggedEvent, Cursor]: ...

    async def get(self, event_id: str) -> LoggedEvent | None: ...

    async def before(self, moment: datetime) -> Cursor:
        """The place just before the first event accepted at *moment* or later; the head if there is none."""

    async def dropped_until(self) -> datetime | None:
        """When the newest event that retention has dropped was accepted; None if nothing was ever dropped."""


class LiveBus(Protocol):
    """Says when there is something new in the log; may carry it too. Lossy by contract: readers also look by
    themselves once a second."""

    def announce(self, page: Page) -> None:
        """*page* has been committed."""

    def listen(self, listener: Callable[[Page | None], None]) -> Callable[[], None]:
        """Call *listener* on every announcement, with the page where the bus carries it. Answers the unsubscriber."""
