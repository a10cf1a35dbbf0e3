"""What the dispatcher needs: of whoever keeps endpoints and deliveries, and of whoever sends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from webhooks.deliveries import Attempt, Delivery, Settlement
from webhooks.endpoints import Endpoint, Health


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What a lane may send now, and when to look again."""

    deliveries: tuple[Delivery, ...]
    next_due_at: datetime | None
    """The earliest due time among those left out, in the past when `limit` cut the list; None when none is left."""


class DeliveryStore(Protocol):
    """Pending deliveries by lane. Every method is safe to call again."""

    async def endpoint(self, endpoint_id: str) -> tuple[Endpoint, Health] | None:
        """The endpoint as it is now with its lane's health; None once it is deleted."""

    async def due(self, endpoint_id: str, *, now: datetime, limit: int, replayed: bool = False) -> Due:
        """At most *limit* pending deliveries due by *now*, forced ones first, then by (due_at, cursor, id).

        Only those that replays made, or, without *replayed*, only the others: live work. Those being sent are still
        pending and are among them: the caller knows which it holds.
        """

    async def queue(
        self, endpoint_id: str, *, limit: int, per_library: int = 1, replayed: bool = False
    ) -> tuple[Delivery, ...]:
        """For ordered lanes: of each library its first *per_library* pending deliveries by cursor, due or not.

        Of live work or of replayed ones, as in `due`. Libraries come in the order of their first due time, at most
        *limit* deliveries in all.
        """

    async def lanes(self) -> Mapping[str, datetime]:
        """Of every active endpoint that has pending deliveries: when the earliest is due."""

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Store all of them, together. A delivery that is no longer pending (cancelled meanwhile) keeps its status
        and gets the attempt only; one that is gone is passed over."""


class Sends(Protocol):
    async def send(self, delivery: Delivery, endpoint: Endpoint) -> Attempt:
        """One attempt, in at most the endpoint's `timeout_seconds`. What a receiver does is never an exception."""
