"""The gateway's ports: what each part needs of the others, as promises. Adapters stand in storage/ and bus/."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from gateway.errors import Fault
from gateway.event_types import EventTypeRecord
from gateway.events import Cursor, Draft, LoggedEvent, Page, Position
from gateway.filters import Filter
from gateway.keys import Key
from gateway.listing import Listing
from gateway.subscriptions import Interest, Subscription
from webhooks.deliveries import Attempt, Delivery, DeliveryStatus

# --- the log ---------------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What one batch of retention has done to the log."""

    events: int
    owing: frozenset[str]
    """Subscriptions with deliveries that have expired with it."""
    more: bool
    """Whether it ended for its size, so that there may be more to do."""


class RetentionStore(Protocol):
    """Takes away what is too old, in batches that are small enough for others to wait for.

    Each may be called again, and by several processes at once. Where an int is answered it counts rows: fewer than
    *limit* mean that nothing is left to do.
    """

    async def drop_events(
        self, *, before: datetime, passed: Cursor, limit: int, max_bytes: int, most_owed: int
    ) -> Dropped:
        """Drop the first events of the log that were accepted before *before*, at most *limit* and about *max_bytes*.

        None beyond *passed*, nor beyond what the fan-out has passed. A pending delivery of a leaving event becomes
        dead (`expired`), which is told, no later than its event leaves; at most *most_owed* of them in one batch.
        That the log begins later, and up to when, is known from the same moment on.
        """

    async def drop_attempts(self, *, before: datetime, limit: int) -> int:
        """Drop attempts that started before *before*."""

    async def drop_deliveries(self, *, before: datetime, limit: int) -> int:
        """Drop deliveries that were settled before *before*, with the attempts that they have left. Never pending
        ones."""

    async def drop_remains(self, *, before: datetime, limit: int) -> int:
        """Drop what no delivery refers to any more: replays made before *before*, and what is known of subscriptions
        whose deletion has left the log."""


class LiveBus(Protocol):
    """Says when there is something new in the log; may carry it too. Lossy by contract: readers also look by
    themselves once a second."""

    def announce(self, page: Page) -> None:
        """*page* has been committed."""

    def listen(self, listener: Callable[[Page | None], None]) -> Callable[[], None]:
        """Call *listener* on every announcement, with the page where the bus carries it. Answers the unsubscriber."""


# --- who may -----------------------------------------------------------------------------------------------------


class KeyStore(Protocol):
    async def add(self, key: Key) -> None: ...

    async def by_hash(self, hash_: bytes) -> Key | None: ...

    async def get(self, key_id: str) -> Key | None: ...

    async def list(self, *, limit: int, before: str | None) -> Listing[Key, str]:
        """Newest first."""

    async def revoke(self, key_id: str) -> bool:
        """Forget the key and append `gateway.key.revoked`, together. False: there is none."""

    async def signing_key(self) -> bytes:
        """The key that signs stream tokens: made once, kept with the log."""


# --- subscriptions -----------------------------------------------------------------------------------------------


class SubscriptionStore(Protocol):
    """Each change appends its notice (`gateway.subscription.created` …) to the log in the same transaction."""

    async def create(self, subscription: Subscription, *, at_most: int | None = None) -> Subscription | None:
        """Store it; answers it with its `created_cursor`. None, and nothing is stored, when its creator already has
        *at_most* subscriptions."""

    async def get(self, subscription_id: str) -> Subscription | None: ...

    async def list(
        self, *, libraries: frozenset[str] | None, limit: int, before: str | None
    ) -> Listing[Subscription, str]:
        """Newest first; only those that a key holding *libraries* (None: all) may see."""

    async def change(
        self, subscription_id: str, change: Callable[[Subscription], Subscription], notice: str
    ) -> Subscription | None:
        """Replace it with what *change* makes of it as it is now; *notice* is the event type to append.

        A *change* that answers an equal subscription changes nothing and appends nothing. What *change* raises
        leaves nothing behind. None: there is none.
        """

    async def delete(self, subscription_id: str) -> bool:
        """Remove it; what it owed is settled as cancelled (`subscription_deleted`) soon after."""

    async def interests(self, at: Cursor) -> Sequence[Interest]:
        """Of every subscription the interest in force for events after *at*."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FanoutPlace:
    """How far the fan-out has come."""

    cursor: Cursor
    """Events up to it have all their deliveries."""
    ahead: Cursor = Cursor(0)
    """Those after it, up to here, have theirs but for subscriptions that are behind; before the cursor: none have."""
    behind: Mapping[str, Cursor] = field(default_factory=dict)
    """Subscriptions that lack what they want of the events after this one."""


Wanted = tuple[LoggedEvent, Sequence[str]]
"""An event, and the ids of subscriptions that it is for."""


class FanoutStore(Protocol):
    async def place(self) -> FanoutPlace: ...

    async def advance(
        self, since: FanoutPlace, to: FanoutPlace, wanted: Sequence[Wanted]
    ) -> Mapping[str, Sequence[Delivery]] | None:
        """Create the deliveries that are *wanted* and move to the new place, together.

        What it creates it answers by subscription. None, and nothing is written, when the place is not *since*: another
        process has moved it.
        """


# --- event types -------------------------------------------------------------------------------------------------


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


# --- deliveries as people see them ---------------------------------------------------------------------------------


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
