"""What is known of event types."""

from collections.abc import Sequence
from typing import Protocol

from gateway.event_types import EventTypeRecord
from gateway.listing import Listing


class EventTypeStore(Protocol):
    async def put(self, record: EventTypeRecord) -> EventTypeRecord:
        """Store it, with its notice (`gateway.event_type.updated`), in place of the one of the same type if there is
        one. Answers it with the place of the notice.

        Raises:
            Conflict: there are as many as there may be.
        """

    async def list(self, *, limit: int, before: str | None) -> Listing[EventTypeRecord, str]:
        """Those that were stored, newest first, and then the built-in ones, as they are now. *before* is a type."""

    async def active(self) -> Sequence[EventTypeRecord]:
        """All whose data is to be checked."""
