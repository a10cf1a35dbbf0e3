"""What an attempt means for its delivery: a pure function."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Reason(StrEnum):
    """Why a delivery is dead or cancelled."""

    EXHAUSTED = "exhausted"
    EXPIRED = "expired"
    GONE = "gone"
    FORBIDDEN_DESTINATION = "forbidden_destination"
    SUBSCRIPTION_DELETED = "subscription_deleted"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not yet: it is due again `at`."""

    at: datetime
    hold_until: datetime | None = None
    """Until then the receiver asked for nothing at all to be sent."""
    counts: bool = True
    """Whether it used up an attempt of the schedule (one that a shutdown broke off did not)."""


@dataclass(frozen=True, slots=True)
class Dead:
    """Given up."""

    reason: Reason
    disable: str | None = None
    """The endpoint is to be disabled too, for this reason."""


Verdict = Delivered | Retry | Dead
