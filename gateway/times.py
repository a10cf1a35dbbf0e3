"""Times as the gateway keeps them: aware datetimes in UTC, whole microseconds; RFC 3339 with `Z` when written."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Answers the present moment, aware and in UTC."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ]((?:[01]\d|2[0-3]):[0-5]\d:)([0-5]\d|60)(?:\.(\d{1,32}))?"
    r"([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)?",
    re.ASCII,
)


def now() -> datetime:
    return datetime.now(UTC)


def to_rfc3339(moment: datetime) -> str:
    """`2025-10-27T06:01:00.000000Z`: always UTC, always six digits.

    >>> to_rfc3339(datetime(2025, 10, 27, 6, 1, tzinfo=UTC))
    '2025-10-27T06:01:00.000000Z'
    """
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_rfc3339(text: str) -> datetime:
    """A date with a time of day, as RFC 3339 writes it; one without an offset is UTC. Digits past microseconds are cut.

    The clock of this world has no leap seconds: 23:59:60 UTC is the midnight after it, as in POSIX.

    Raises:
        ValueError: *text* is anything else, in words fit for a user.
    """
    if not (match := _RFC3339.fullmatch(text)):
        raise ValueError("must be a time in RFC 3339, like 2025-10-27T06:01:00Z")
    day, clock, second, fraction, offset = match.groups()
    if is_leap := second == "60":
        second, fraction = "59", None
    micros = (fraction or "")[:6].ljust(6, "0")
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{second}.{micros}{(offset or 'Z').upper()}").astimezone(UTC)
        if not is_leap:
            return moment
        if (moment.hour, moment.minute) != (23, 59):
            raise ValueError("leap seconds come at midnight")
        return moment + timedelta(seconds=1)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"must be a time that exists: {error}") from error


def as_utc(moment: datetime) -> datetime:
    """*moment* in UTC; a naive one is taken to be UTC already."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def to_micros(moment: datetime) -> int:
    """Whole microseconds since 1970, exactly (no floating point between)."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
