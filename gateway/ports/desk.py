"""Deliveries as people see them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from gateway.events import Cursor, LoggedEvent
from gateway.listing import Listing
from gateway.subscriptions import Interest
from webhooks.deliveries import Attempt, DeliveryStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord:
    id: str
    event_id: str
    subscription_id: str
    library_id: str
    type: str
    status: DeliveryStatus
    reason: str | None
    attempt_count: int
    created_at: datetime
    due_at: datetime | None
    settled_at: datetime | None
    replay_id: str | None
    libraries: frozenset[str] | None = None
    """The confinement of its subscription: who may see it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryQuery:
    libraries: frozenset[str] | None
    """Those that the caller is confined to; None: all."""
    subscription_id: str | None = None
    event_id: str | None = None
    status: DeliveryStatus | None = None
    library_id: str | None = None
    type: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Of the event's acceptance: `since` inclusive, `until` exclusive."""
    resume: str | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one subscription got of one event: its deliveries, and by what it was judged that it gets one."""

    subscription_id: str
    deliveries: tuple[DeliveryRecord, ...]
    """Newest first; more than one if replays made them."""
    interest: Interest
    is_known: bool
    """Whether this interest was in force for the event. If not, nobody knows what was, and it is the present one."""
    fanned_out: Cursor
    """Up to where events had their deliveries by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedeliverQuery:
    """Which dead letters: by id, or all of a subscription that match."""

    libraries: frozenset[str] | None
    ids: tuple[str, ...] | None = None
    subscription_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    types: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRecord:
    """A replay or a bulk redelivery, and how far it is: `matched` when it was asked for, `created` so far."""

    id: str
    kind: Literal["replay", "redeliver"]
    subscription_id: str | None
    libraries: frozenset[str] | None
    created_at: datetime
    matched: int
    created: int
    by_status: Mapping[str, int]
    status: Literal["running", "finished", "stopped"] = "running"
    finished_at: datetime | None = None


class DeliveryDesk(Protocol):
    """Deliveries as people see and steer them. Methods that change something answer what was changed."""

    async def get(self, delivery_id: str) -> DeliveryRecord | None: ...

    async def attempts(self, delivery_id: str) -> Sequence[Attempt]: ...

    async def list(self, query: DeliveryQuery) -> Listing[DeliveryRecord, str]:
        """Newest first."""

    async def outcomes(
        self, event: LoggedEvent, *, libraries: frozenset[str] | None, limit: int, before: str | None
    ) -> Listing[Outcome, str]:
        """What became of *event* for each subscription that a key holding *libraries* may see, newest first.

        Of each the newest `MOST_OUTCOMES` deliveries.
        """

    async def retry(self, delivery_id: str, *, now: datetime) -> DeliveryRecord | None:
        """Make a pending, dead or cancelled delivery due now, forced. None: there is none.

        Raises:
            Conflict: it was delivered, or its event or subscription is gone.
        """

    async def cancel(self, delivery_id: str, *, now: datetime) -> DeliveryRecord | None:
        """Raises:
        Conflict: it is settled already.
        """

    async def forget(self, delivery_id: str) -> bool:
        """Remove a dead letter with its attempts. False: there is no such dead letter."""

    async def count_redeliverable(self, query: RedeliverQuery) -> int: ...

    async def redeliver(self, query: RedeliverQuery, *, now: datetime) -> ReplayRecord:
        """Give every dead letter that matches, whose event is in the log, a fresh schedule starting now."""

    async def replay(self, replay_id: str) -> ReplayRecord | None: ...

    async def stop_replay(self, replay_id: str) -> frozenset[str] | None:
        """Make no more of it, and cancel what is pending; the subscriptions it was pending for. None: there is none."""


MOST_OUTCOMES = 20
"""Deliveries of one event and one subscription that are shown together."""


Statistics = Mapping[str, Any]
