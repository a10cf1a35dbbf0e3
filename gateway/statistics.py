"""What this process has done since it started: the figures of `bus.get_statistics()` and `GET /v1/events/stats`.

Publishing is counted here, by type. Whoever delivers (handlers, streams, webhooks) counts for itself, and answers its
share when it is asked. The gateway's own events are not counted.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from gateway.events import GATEWAY_PREFIX, Draft
from gateway.ports.log import IdTaken, Misfit, Published
from gateway.rollups.distribution import LONG_SECONDS, SECONDS, Distribution
from webhooks.deliveries import Attempt, Failure, Settlement
from webhooks.verdicts import Dead, Delivered, Reason, Verdict

MAX_TYPES: Final = 1000
"""Publishers choose the names of types; beyond these, events are counted without theirs."""


DELIVERED: Final = "delivered"
REFUSED: Final = "refused"
"""Answered, but not with a 2xx."""
FAULT: Final = "fault"
"""Not even sent, by a fault of the gateway's own."""
OUTCOMES: Final = (DELIVERED, REFUSED, *(failure.value for failure in Failure), FAULT)
DEATHS: Final = (Reason.EXHAUSTED, Reason.EXPIRED, Reason.GONE, Reason.FORBIDDEN_DESTINATION)


class Publishing(Protocol):
    """What it takes to publish."""

    @property
    def queue_size(self) -> int:
        """Events that wait for their commit."""

    async def publish(self, drafts: Sequence[Draft]) -> Published:
        """Append *drafts*, all or none; durable on return. Raises `Overloaded`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one deliverer contributes to the figures."""

    subscribers: int = 0
    """How many it delivers to now."""
    waiting: int = 0
    """Events that it has yet to deliver."""
    delivered: int = 0
    """Deliveries since the start: an event that goes to three counts three times."""
    latency_seconds: float = 0.0
    """Of all of them together, from acceptance to delivery."""
    untimed: int = 0
    """How many of them say nothing about that."""
    extras: Mapping[str, float] = field(default_factory=dict)
    """Figures of its own, shown beside the others under their names."""


class Counters:
    """*monotonic* answers seconds of a clock that is never set back."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._started = monotonic()
        self._sources: list[Callable[[], Share]] = []
        self._published = 0
        self._duplicates = 0
        self._by_type: Counter[str] = Counter()
        self._of_other_types = 0

    def add(self, source: Callable[[], Share]) -> None:
        """Ask *source* for its share whenever figures are wanted."""
        self._sources.append(source)

    @property
    def by_type(self) -> Mapping[str, int]:
        """Events that were new, by type: at most `MAX_TYPES` of them."""
        return self._by_type

    @property
    def of_other_types(self) -> int:
        return self._of_other_types

    @property
    def duplicates(self) -> int:
        return self._duplicates

    def published(self, drafts: Sequence[Draft], appended: Published) -> None:
        """*appended* is what the log made of *drafts*."""
        if isinstance(appended, IdTaken | Misfit):
            return
        for draft, receipt in zip(drafts, appended, strict=True):
            if receipt.duplicate:
                self._duplicates += 1
            elif not draft.type.startswith(GATEWAY_PREFIX):
                self._published += 1
                self._count_type(draft.type)

    def figures(self) -> dict[str, Any]:
        """The figures by their public names; times in the units that the names give."""
        shares = [source() for source in self._sources]
        delivered = sum(share.delivered for share in shares)
        latency = sum(share.latency_seconds for share in shares)
        timed = delivered - sum(share.untimed for share in shares)
        figures: dict[str, Any] = {
            "total_published": self._published,
            "total_delivered": delivered,
            "active_subscribers": sum(share.subscribers for share in shares),
            "queue_size": sum(share.waiting for share in shares),
            "events_by_type": dict(self._by_type),
            "average_delivery_latency_ms": round(latency / timed * 1000, 3) if timed else 0.0,
            "uptime_seconds": round(self._monotonic() - self._started, 3),
            "total_duplicates": self._duplicates,
            "events_of_other_types": self._of_other_types,
        }
        for share in shares:
            figures |= share.extras
        return figures

    def _count_type(self, name: str) -> None:
        if name in self._by_type or len(self._by_type) < MAX_TYPES:
            self._by_type[str(name)] += 1
        else:
            self._of_other_types += 1


class CountedPublisher:
    """Publishes, and counts what was new. Everything in a process that publishes goes through the same one."""

    def __init__(self, publisher: Publishing, counters: Counters) -> None:
        self._publisher = publisher
        self._counters = counters
        counters.add(lambda: Share(waiting=publisher.queue_size))

    @property
    def queue_size(self) -> int:
        return self._publisher.queue_size

    async def publish(self, drafts: Sequence[Draft]) -> Published:
        appended = await self._publisher.publish(drafts)
        self._counters.published(drafts, appended)
        return appended


class DeliveryTally:
    """What webhooks have delivered. A replay counts, but says nothing about how long an event takes."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        """Attempts, by what became of them."""
        self.deaths: Counter[str] = Counter({reason.value: 0 for reason in DEATHS})
        """Deliveries that were given up, by reason."""
        self.delivered = 0
        self.durations = Distribution(SECONDS)
        """Of attempts."""
        self.latencies = Distribution(LONG_SECONDS)
        """From acceptance to delivery."""
        self._of_own_events = 0

    def count(self, settlements: Sequence[Settlement]) -> None:
        """*settlements* have been stored."""
        for settlement in settlements:
            if settlement.attempt is not None:
                self.outcomes[_outcome(settlement.attempt, settlement.verdict)] += 1
                self.durations.observe(settlement.attempt.duration.total_seconds())
            match settlement.verdict:
                case Delivered():
                    self.delivered += 1
                    if settlement.delivery.event_type.startswith(GATEWAY_PREFIX):
                        self._of_own_events += 1
                    elif (latency := settlement.latency) is not None:
                        self.latencies.observe(max(0.0, latency.total_seconds()))
                case Dead(reason=reason):
                    self.deaths[reason.value] += 1

    def share(self, *, subscriptions: int, behind: int) -> Share:
        """*subscriptions* there are; for *behind* events their deliveries have yet to be made."""
        delivered = self.delivered - self._of_own_events
        return Share(
            subscribers=subscriptions,
            waiting=behind,
            delivered=delivered,
            latency_seconds=self.latencies.total,
            untimed=delivered - self.latencies.count,
            extras={
                "subscriptions": subscriptions,
                "webhooks_delivered": delivered,
                "webhook_attempts": self.outcomes.total(),
                "dead_letters": self.deaths.total(),
            },
        )


def _outcome(attempt: Attempt, verdict: Verdict) -> str:
    if isinstance(verdict, Delivered):
        return DELIVERED
    if attempt.failure is not None:
        return attempt.failure.value
    return FAULT if attempt.status_code is None else REFUSED
