"""Where deliveries go: an endpoint is a subscription as this package sees it."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from webhooks.signing import Secret


class Status(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    """By a person."""
    DISABLED = "disabled"
    """By the gateway, with a reason."""


class Ordering(StrEnum):
    NONE = "none"
    LIBRARY = "library"


class Payload(StrEnum):
    STANDARD = "standard"
    CLOUDEVENTS = "cloudevents"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A URL with its secrets and limits. `retry_schedule` is in seconds, one wait after each failed attempt."""

    id: str
    url: str
    secrets: tuple[Secret, ...]
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    ordering: Ordering = Ordering.NONE
    payload: Payload = Payload.STANDARD
    max_in_flight: int = 8
    max_per_second: float | None = None
    timeout_seconds: float = 15.0
    retry_schedule: tuple[float, ...]
    status: Status = Status.ACTIVE
    idle: timedelta = timedelta(0)
    """How long it has been paused or disabled in all, which no delivery's age counts."""

    def __repr__(self) -> str:
        """Without what is secret."""
        return f"Endpoint(id={self.id!r}, status={self.status.value!r})"


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What a lane remembers of its receiver between attempts, and across restarts."""

    failing_since: datetime | None = None
    """The first failed attempt after the last good one."""
    failing_told: bool = False
    consecutive_failures: int = 0
    """Failed attempts in a row, of any kind."""
    unreachable: int = 0
    """Connection failures and time-outs in a row; what the circuit counts."""
    circuit_trips: int = 0
    """How often the circuit has opened since it was last closed: the length of its next pause."""
    circuit_open_until: datetime | None = None
    held_until: datetime | None = None
    """What `Retry-After` asked for."""
