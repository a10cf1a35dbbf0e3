"""What an attempt means for its delivery: a pure function.

2xx ──────────────────────────▶ Delivered
410 ──────────────────────────▶ Dead(gone), and the endpoint is disabled
a forbidden address ──────────▶ Dead(forbidden_destination)
anything else, or no answer ──▶ Retry(at the later of the schedule and Retry-After)
                                Dead(exhausted) when the schedule is used up
                                Dead(expired) when that moment would be past its greatest age
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum

import msgspec

from webhooks.schedule import Rand, wait_after

LONGEST_HOLD = timedelta(hours=24)
_SECONDS = re.compile(r"\d{1,400}(?:\.\d{1,100})?", re.ASCII)


class Reason(StrEnum):
    """Why a delivery is dead or cancelled."""

    EXHAUSTED = "exhausted"
    EXPIRED = "expired"
    GONE = "gone"
    FORBIDDEN_DESTINATION = "forbidden_destination"
    SUBSCRIPTION_DELETED = "subscription_deleted"
    CANCELLED = "cancelled"


class Delivered(msgspec.Struct, frozen=True):
    """The receiver has it."""


class Retry(msgspec.Struct, frozen=True):
    """Not yet: it is due again `at`."""

    at: datetime
    hold_until: datetime | None = None
    """Until then the receiver asked for nothing at all to be sent."""


class Dead(msgspec.Struct, frozen=True):
    """Given up."""

    reason: Reason
    disable: str | None = None
    """The endpoint is to be disabled too, for this reason."""
    hold_until: datetime | None = None
    """As in `Retry`: the last answer of one delivery can ask for a pause of all."""


Verdict = Delivered | Retry | Dead


def judge(
    *,
    status_code: int | None,
    is_forbidden: bool = False,
    retry_after: str | None = None,
    failures: int,
    schedule: Sequence[float],
    now: datetime,
    give_up_at: datetime | None,
    rand: Rand,
) -> Verdict:
    """What an attempt that ended *now* means for its delivery.

    Args:
        status_code: of the answer, None when there was none.
        is_forbidden: its destination turned out to be an address that must not be connected to.
        retry_after: the header as it came, heeded on 429 and 503.
        failures: attempts of the present schedule, this one included, if it failed.
        schedule: seconds to wait after each failed attempt.
        give_up_at: when the delivery becomes too old; None when it cannot yet be known (no attempt before this one).
        rand: for the jitter.
    """
    if status_code is not None and 200 <= status_code <= 299:
        return Delivered()
    if status_code == 410:
        return Dead(Reason.GONE, disable="gone")
    if is_forbidden:
        return Dead(Reason.FORBIDDEN_DESTINATION)
    hold_until = None
    if retry_after is not None and status_code in {429, 503}:
        hold_until = read_retry_after(retry_after, now)
    if (wait := wait_after(failures, schedule, rand)) is None:
        return Dead(Reason.EXHAUSTED, hold_until=hold_until)
    at = max(now + wait, hold_until or now)
    if give_up_at is not None and at >= give_up_at:
        return Dead(Reason.EXPIRED, hold_until=hold_until)
    return Retry(at, hold_until=hold_until)


def read_retry_after(text: str, now: datetime) -> datetime | None:
    """Until when a `Retry-After` (RFC 9110, 10.2.3: seconds or a date) asks to wait, at most 24 h from *now*.

    None when it is nonsense, or asks for no wait at all. Fractions of seconds are taken too: some servers send them.
    """
    text = text.strip()
    if _SECONDS.fullmatch(text):
        until = now + timedelta(seconds=min(float(text), LONGEST_HOLD.total_seconds()))
    else:
        try:
            until = parsedate_to_datetime(text)
            until = until.replace(tzinfo=UTC) if until.tzinfo is None else until.astimezone(UTC)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        until = min(until, now + LONGEST_HOLD)
    return until if until > now else None
