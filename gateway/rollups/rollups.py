"""What deliveries came to, added up by the minute, the hour and the day: the values, and the port that answers them.

settlements ─▶ tally (one a stored batch) ─▶ rollups, of each subscription and of all together:
                                             everything · by type · by library
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Protocol

from gateway.listing import Listing
from gateway.rollups.histogram import Histogram, merge
from webhooks.endpoints import Health

MOST_NAMES = 100
"""Of one subscription in one interval, so many types and so many libraries are counted by name."""
MOST_NAMES_OF_ALL = 1_000
"""Of all subscriptions together, so many."""


class Interval(StrEnum):
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"

    @property
    def length(self) -> timedelta:
        return _LENGTHS[self]

    @property
    def kept(self) -> timedelta:
        """How long its rollups are kept."""
        return _KEPT[self]

    def start(self, moment: datetime) -> datetime:
        """When the interval that *moment* lies in began, in UTC."""
        return moment - (moment - _EPOCH) % self.length


_LENGTHS = {
    Interval.MINUTE: timedelta(minutes=1),
    Interval.HOUR: timedelta(hours=1),
    Interval.DAY: timedelta(days=1),
}
_KEPT = {Interval.MINUTE: timedelta(days=2), Interval.HOUR: timedelta(days=32), Interval.DAY: timedelta(days=400)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Grouping(StrEnum):
    NOTHING = "nothing"
    SUBSCRIPTION = "subscription"
    TYPE = "type"
    LIBRARY = "library"


@dataclass(slots=True, kw_only=True)
class Figures:
    """What some attempts came to. They are added up, so they change."""

    attempts: int = 0
    failed_attempts: int = 0
    """Those that did not deliver, whatever came of it."""
    delivered: int = 0
    """Deliveries that became so."""
    dead: int = 0
    durations: Histogram = field(default_factory=dict)
    """Of attempts, from their beginning to their end."""
    latencies: Histogram = field(default_factory=dict)
    """From an event's acceptance to its delivery. What was sent again or replayed has none."""

    def add(self, other: "Figures") -> None:
        self.attempts += other.attempts
        self.failed_attempts += other.failed_attempts
        self.delivered += other.delivered
        self.dead += other.dead
        merge(self.durations, other.durations)
        merge(self.latencies, other.latencies)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollup:
    """The figures of one interval, or of one group in it."""

    start: datetime
    group: str | None
    """Of which subscription, type or library. None: all together; or, grouped by type or library, those beyond as many
    as are counted by name."""
    figures: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The group that a page of rollups ended with."""

    start: datetime
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupQuery:
    """Times are of the intervals: from the one that `since` lies in, up to those that begin before `until`."""

    libraries: frozenset[str] | None
    """Those that the caller is confined to; None: all."""
    interval: Interval
    grouping: Grouping
    since: datetime
    until: datetime | None = None
    subscription_id: str | None = None
    resume: Place | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one subscription stands."""

    counts: Mapping[str, int]
    """Its deliveries by status: each that is kept."""
    recent: Figures
    oldest_due_at: datetime | None
    health: Health


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """How all subscriptions stand together."""

    counts: Mapping[str, int]
    """Their deliveries by status."""
    open_circuits: int
    oldest_due_at: datetime | None
    """Of active subscriptions."""


class Rollups(Protocol):
    """Everything that was settled before a call is in what it answers."""

    async def list(self, query: RollupQuery) -> Listing[Rollup, Place]:
        """Newest first; of one interval by falling group. Only of subscriptions that `query.libraries` may see."""

    async def standing(self, subscription_id: str, *, since: datetime) -> Standing:
        """`recent` is by whole hours, from the one that *since* lies in."""

    async def overview(self) -> Overview: ...
