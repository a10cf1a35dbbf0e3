"""A standing wish to be told: what its owner set, and what the gateway keeps about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from gateway.events import Cursor
from gateway.filters import Filter
from webhooks.endpoints import Ordering, Payload, Status
from webhooks.signing import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """`libraries` is the copy of its key's confinement, None for an unconfined key: which events it may be told of,
    and who may see it."""

    id: str
    url: str
    filter: Filter
    libraries: frozenset[str] | None
    description: str = ""
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    signature: str = "v1"
    ordering: Ordering = Ordering.NONE
    payload: Payload = Payload.STANDARD
    max_in_flight: int = 8
    max_per_second: float | None = None
    timeout_seconds: float = 15.0
    retry_schedule: tuple[float, ...] | None = None
    """None: the gateway's own (GATEWAY_RETRY_SCHEDULE)."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    secrets: tuple[Secret, ...] = field(repr=False, default=())
    status: Status = Status.ACTIVE
    disabled_reason: str | None = None
    created_at: datetime
    created_by: str
    """The id of the key that made it."""
    created_cursor: Cursor = Cursor(0)
    """The place of its `gateway.subscription.created` in the log: it gets what comes after."""
    idle: timedelta = timedelta(0)
    """How long it was paused or disabled, up to `idle_since`."""
    idle_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Interest:
    """What the fan-out knows of a subscription: which events are for it."""

    subscription_id: str
    filter: Filter
    libraries: frozenset[str] | None
    since: Cursor
    """Only events after this place."""


def paused(subscription: Subscription, now: datetime) -> Subscription:
    """As a person pauses it. One that is disabled becomes paused too: resuming is then that person's to do."""
    return _idle(subscription, Status.PAUSED, None, now)


def disabled(subscription: Subscription, reason: str, now: datetime) -> Subscription:
    """As the gateway disables it, for a *reason* fit for its owner. One that is disabled keeps its first reason."""
    if subscription.status is Status.DISABLED:
        return subscription
    return _idle(subscription, Status.DISABLED, reason, now)


def resumed(subscription: Subscription, now: datetime) -> Subscription:
    """Active again. The time it was idle is added up, for no delivery grows old in it."""
    if subscription.status is Status.ACTIVE:
        return subscription
    return replace(
        subscription,
        status=Status.ACTIVE,
        disabled_reason=None,
        idle=idle_by(subscription.idle, subscription.idle_since, now),
        idle_since=None,
    )


def idle_by(idle: timedelta, since: datetime | None, now: datetime) -> timedelta:
    """How long it has been idle in all by *now*: *idle*, and what has passed *since*. Never less than *idle*."""
    return idle if since is None else idle + max(timedelta(0), now - since)


def _idle(subscription: Subscription, status: Status, reason: str | None, now: datetime) -> Subscription:
    """Paused and disabled are both idle: going from one to the other starts no new idle time."""
    return replace(subscription, status=status, disabled_reason=reason, idle_since=subscription.idle_since or now)
