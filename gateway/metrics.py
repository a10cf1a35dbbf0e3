"""What Prometheus is told: a few families of each part, from figures that the parts keep anyway.

parts ─▶ families ─┐
database ─ at most every few seconds ─▶ families ─▶ one text

A scrape costs what there is to print, however many streams and deliveries there are. Labels are names that the gateway
chooses, but for event types, of which there are a bounded number; never a URL, a key, a header or a secret.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from gateway.errors import StorageUnavailable
from gateway.events import Cursor, Position
from gateway.ports.log import EventLog
from gateway.rollups.distribution import Distribution
from gateway.rollups.rollups import Overview, Rollups
from gateway.sending.sending import Sending
from gateway.statistics import Counters, DeliveryTally, Publishing
from gateway.streams.streaming import Streams
from gateway.times import Clock
from gateway.version import __version__

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
OTHER_TYPES: Final = "(other)"
"""For the events of types beyond those counted by name. No type is named so."""
LOOK_SECONDS = 5.0

Families = Callable[[], Iterable[Metric]]

_logger = structlog.get_logger(__name__)


class Metrics(Collector):
    """Puts the families of all *sources* into one text, after *refresh*."""

    def __init__(self, *sources: Families, refresh: Callable[[], Awaitable[None]]) -> None:
        self._sources = sources
        self._refresh = refresh
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def collect(self) -> Iterator[Metric]:
        for source in self._sources:
            yield from source()

    async def text(self) -> bytes:
        await self._refresh()
        return generate_latest(self._registry)


# --- the database's -----------------------------------------------------------------------------------------------


class Reader(Protocol):
    """Something that follows the log."""

    @property
    def cursor(self) -> Cursor: ...


@dataclass(frozen=True, slots=True)
class _Look:
    position: Position
    overview: Overview


class Looks:
    """What has to be asked of the database, at most every few seconds, whoever scrapes. Without an answer it is left
    out, and the rest is told all the same."""

    def __init__(
        self, log: EventLog, rollups: Rollups, *, clock: Clock, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._rollups = rollups
        self._clock = clock
        self._monotonic = monotonic
        self._turn = asyncio.Lock()
        self._looked_at: float | None = None
        self._found: _Look | None = None

    async def refresh(self) -> None:
        async with self._turn:
            if self._looked_at is not None and self._monotonic() - self._looked_at < LOOK_SECONDS:
                return
            try:
                self._found = _Look(await self._log.position(), await self._rollups.overview())
            except StorageUnavailable as error:
                _logger.warning("metrics.database_unavailable", error=error.detail)
                self._found = None
            self._looked_at = self._monotonic()

    def families(self, tail: Reader, fanout: Reader) -> Iterator[Metric]:
        found = self._found
        yield gauge("gateway_database_up", "Whether the database answered when it was last asked.", found is not None)
        if found is None:
            return
        # The head may have moved since it was read, but never backwards.
        head = max(found.position.head, tail.cursor)
        yield gauge("gateway_log_head", "The place of the newest event in the log.", head)
        yield gauge("gateway_log_earliest", "The place of the oldest event that is kept.", found.position.earliest)
        lags = max(0, head - tail.cursor), max(0, head - fanout.cursor)
        yield gauge("gateway_tail_lag_events", "Events that streams and handlers have yet to hear of.", lags[0])
        yield gauge("gateway_fanout_lag_events", "Events whose deliveries have yet to be made.", lags[1])
        yield from _standing(found.overview, self._clock())


def _standing(overview: Overview, now: datetime) -> Iterator[Metric]:
    oldest = overview.oldest_due_at
    age = 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())
    yield gauges("gateway_deliveries", "Deliveries that are kept, by status.", "status", overview.counts)
    yield gauge("gateway_webhook_oldest_due_age_seconds", "For how long the oldest due delivery has been due.", age)
    yield gauge("gateway_webhook_circuits_open", "Receivers that cannot be reached.", overview.open_circuits)


# --- those of the parts -------------------------------------------------------------------------------------------


def publishing(counts: Counters, publisher: Publishing) -> Iterator[Metric]:
    by_type = {str(name): count for name, count in counts.by_type.items()}
    if counts.of_other_types:
        by_type[OTHER_TYPES] = counts.of_other_types
    yield counters("gateway_events_published", "Events that were new, without the gateway's own.", "type", by_type)
    yield counter("gateway_events_duplicate", "Events that were published again.", counts.duplicates)
    yield gauge("gateway_publish_queue_events", "Events that wait for their commit.", publisher.queue_size)


def webhooks(tally: DeliveryTally, sending: Sending) -> Iterator[Metric]:
    yield counters("gateway_webhook_attempts", "Attempts, by what became of them.", "outcome", tally.outcomes)
    yield counter("gateway_webhook_delivered", "Deliveries that were delivered.", tally.delivered)
    yield counters("gateway_webhook_dead", "Deliveries that were given up, by reason.", "reason", tally.deaths)
    yield histogram("gateway_webhook_attempt_duration_seconds", "Of attempts, from beginning to end.", tally.durations)
    yield histogram(
        "gateway_webhook_publish_to_delivered_seconds",
        "From an event's acceptance to its delivery, retries and all, without replays.",
        tally.latencies,
    )
    yield gauge("gateway_webhook_lanes_awake", "Subscriptions that have work, or had it just now.", sending.lanes)
    yield gauge("gateway_webhook_attempts_in_flight", "Attempts under way.", sending.in_flight)


def of_streams(streams: Streams) -> Iterator[Metric]:
    counts = streams.counts
    yield gauge("gateway_streams_open", "Streams that are open, or about to be.", len(streams))
    yield counter("gateway_streams_opened", "Streams that began.", counts.opened)
    yield counters("gateway_streams_closed", "Streams that ended, by reason.", "reason", counts.ended)
    yield histogram("gateway_stream_lag_seconds", "From acceptance to the socket of a live stream.", counts.lag)
    yield histogram("gateway_stream_replay_events", "How far back streams began that resumed.", counts.replayed)
    yield counter("gateway_stream_gaps", "Times that a reader was told of a loss.", counts.gaps)
    yield counter("gateway_stream_events", "Events that were written to streams.", counts.events_delivered)
    yield counter("gateway_stream_frames", "Frames that were written, heartbeats and all.", counts.frames)
    yield counter("gateway_stream_sent_bytes", "Bytes that were written to streams.", counts.bytes)


def build() -> Iterator[Metric]:
    family = GaugeMetricFamily("gateway_build_info", "Which version runs.", labels=("version",))
    family.add_metric((__version__,), 1)
    yield family


# --- families -----------------------------------------------------------------------------------------------------


def gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for each, value in values.items():
        family.add_metric((each,), value)
    return family


def counter(name: str, text: str, value: float) -> Metric:
    """*name* without the `_total` that it is printed with."""
    return CounterMetricFamily(name, text, value=float(value))


def counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=(label,))
    for each, value in values.items():
        family.add_metric((each,), value)
    return family


def histogram(name: str, text: str, distribution: Distribution) -> Metric:
    family = HistogramMetricFamily(name, text)
    family.add_metric((), cumulated(distribution), distribution.total)
    return family


def cumulated(distribution: Distribution) -> list[tuple[str, float]]:
    """How many are at or below each bound, as Prometheus writes bounds."""
    so_far = 0
    buckets = []
    for bound, count in zip((*distribution.bounds, float("inf")), distribution.counts, strict=True):
        so_far += count
        buckets.append(("+Inf" if bound == float("inf") else repr(float(bound)), float(so_far)))
    return buckets
