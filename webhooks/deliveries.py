"""One event bound for one endpoint, each HTTP request made for it, and what becomes of it.

PENDING ──2xx──────────────────────────▶ DELIVERED
   │ ▲ ──schedule or age used up, 410──▶ DEAD ──────┐
   │ └──────────── retry, redeliver ◀───────────────┤
   └──────a person, or its endpoint is deleted────▶ CANCELLED

Several of these are made for each attempt, so they are structs: a frozen dataclass of twenty fields takes 8 us to make,
a struct 0.5.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from webhooks.endpoints import Health
from webhooks.verdicts import Delivered, Verdict


class DeliveryStatus(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    CANCELLED = "cancelled"


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A pending delivery with all that is needed to send it."""

    id: str
    endpoint_id: str
    event_id: str
    event_type: str
    library_id: str
    cursor: int
    """The event's place in the log: the order that `Ordering.LIBRARY` keeps."""
    body: bytes
    event_time: datetime
    accepted_at: datetime | None = None
    """When the gateway took the event; None: when the delivery was made."""
    traceparent: str | None = None
    created_at: datetime
    due_at: datetime
    attempt_count: int = 0
    """Attempts made, over all schedules."""
    schedule_start: int = 0
    """`attempt_count` when the present schedule began; a redelivery begins a fresh one."""
    first_attempt_at: datetime | None = None
    """Of the present schedule."""
    idle_before: timedelta = timedelta(0)
    """The endpoint's `idle` at that moment."""
    forced: bool = False
    """A person asked for it now: past schedule, Retry-After and circuit, but not past a pause."""
    replay_id: str | None = None
    replayed: bool = False
    """Made by a replay: it waits behind live work."""
    replay_per_second: float | None = None
    """How many first attempts a second its replay may make; None: as many as the endpoint takes."""

    def __repr__(self) -> str:
        """Without the body, which is nothing for a log."""
        return f"Delivery(id={self.id!r}, endpoint_id={self.endpoint_id!r}, cursor={self.cursor})"


class Failure(StrEnum):
    """Why an attempt has no answer."""

    UNREACHABLE = "unreachable"
    """Refused, reset, no such name, broken TLS: no answer could be had."""
    TIMEOUT = "timeout"
    FORBIDDEN = "forbidden"
    """Its address is one that the gateway does not connect to."""
    PROTOCOL = "protocol"
    """It answered with something that is not HTTP."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request as it went. Without `status_code`, `error` says in words why there is none.

    Header values that could be secret are masked before they get here; `response_body` is its first 4 KiB.
    """

    number: int
    """From 1, over all schedules of its delivery."""
    started_at: datetime
    duration: timedelta
    connect: timedelta | None = None
    first_byte: timedelta | None = None
    status_code: int | None = None
    error: str | None = None
    failure: Failure | None = None
    retry_after: str | None = None
    """The header as it came, on 429 and 503."""
    request_headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    response_headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    response_body: bytes = b""


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt came to, to be stored as one: the attempt, its delivery's new state, the endpoint's health.

    `attempt` is None when a delivery is given up without one (too old after a pause).
    """

    delivery: Delivery
    attempt: Attempt | None
    verdict: Verdict
    health: Health
    at: datetime
    tell_failing: bool = False
    """The endpoint has just reached half of the way to being disabled."""
    disable: str | None = None
    """The reason for which the endpoint is to be disabled with this."""
    term: int | None = None
    """Of its lane, when the attempt began; None: no other process uses the store."""

    @property
    def latency(self) -> timedelta | None:
        """How long the event took from acceptance until it was delivered. None: it was not, or not for the first
        time: what was sent again or replayed says nothing about it."""
        if not isinstance(self.verdict, Delivered) or self.delivery.replay_id is not None:
            return None
        return self.at - (self.delivery.accepted_at or self.delivery.created_at)
