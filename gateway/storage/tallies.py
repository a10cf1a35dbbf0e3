"""What a batch of settlements came to, in a row or a few beside it: all that settling writes for statistics.

Only what the batch has changed is counted. One that is stored again, because its commit broke, finds its attempts and
verdicts there, and counts nothing.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Row, insert, select

from gateway.rollups.histogram import Histogram, add
from gateway.rollups.rollups import Figures, Interval
from gateway.storage.connection import Connection
from gateway.storage.tables import tallies
from gateway.times import from_micros, to_micros
from webhooks.deliveries import Attempt, DeliveryStatus, Settlement
from webhooks.verdicts import Dead, Delivered, Retry

ENTRIES_AT_ONCE = 5
"""In one row. Most batches take one."""


class Source(NamedTuple):
    """Where figures come from: a minute, in microseconds since 1970, a subscription, a type and a library."""

    minute: int
    subscription_id: str
    type: str
    library_id: str

    @property
    def moment(self) -> datetime:
        return from_micros(self.minute)


class Tally(msgspec.Struct, array_like=True):
    """The figures of one source."""

    source: Source
    attempts: int
    failed_attempts: int
    delivered: int
    dead: int
    durations: Histogram
    latencies: Histogram

    @property
    def figures(self) -> Figures:
        return Figures(
            attempts=self.attempts,
            failed_attempts=self.failed_attempts,
            delivered=self.delivered,
            dead=self.dead,
            durations=self.durations,
            latencies=self.latencies,
        )


async def tally(connection: Connection, settled: Iterable[tuple[Settlement, Row[Any]]]) -> None:
    """Count *settled*, each with its delivery's row as it was before."""
    counted = _counted(settled)
    rows = [
        {"figures": _ENCODER.encode(counted[start : start + ENTRIES_AT_ONCE])}
        for start in range(0, len(counted), ENTRIES_AT_ONCE)
    ]
    if rows:
        await connection.execute(_ADD, rows)


def encoded(found: Mapping[Source, Figures], *, most_rows: int) -> list[bytes]:
    """*found* as at most so many rows, by minute and subscription."""
    entries = [
        Tally(
            source,
            figures.attempts,
            figures.failed_attempts,
            figures.delivered,
            figures.dead,
            figures.durations,
            figures.latencies,
        )
        for source, figures in sorted(found.items(), key=lambda entry: entry[0])
    ]
    size = max(ENTRIES_AT_ONCE, -(-len(entries) // most_rows))
    return [_ENCODER.encode(entries[start : start + size]) for start in range(0, len(entries), size)]


def decoded(figures: bytes) -> list[Tally]:
    return _DECODER.decode(figures)


def merge(into: dict[Source, Figures], some: Iterable[Tally]) -> None:
    """Count in *into* all that *some* have counted."""
    for each in some:
        if (figures := into.get(each.source)) is None:
            into[each.source] = each.figures
        else:
            figures.add(each.figures)


async def all_tallies(connection: Connection) -> dict[Source, Figures]:
    """What is not in the rollups yet."""
    found: dict[Source, Figures] = {}
    for figures in (await connection.execute(select(tallies.c.figures))).scalars():
        merge(found, decoded(figures))
    return found


def _counted(settled: Iterable[tuple[Settlement, Row[Any]]]) -> list[Tally]:
    found: dict[Source, Tally] = {}
    attempts: set[tuple[str, int]] = set()
    ended: set[str] = set()
    for settlement, row in settled:
        delivery, attempt = settlement.delivery, settlement.attempt
        minute = to_micros(Interval.MINUTE.start(settlement.at))
        source = Source(minute, delivery.endpoint_id, delivery.event_type, delivery.library_id)
        if (into := found.get(source)) is None:
            into = found[source] = Tally(source, 0, 0, 0, 0, {}, {})
        if attempt is not None and attempt.number > row.attempt_count and (delivery.id, attempt.number) not in attempts:
            attempts.add((delivery.id, attempt.number))
            _count_attempt(into, attempt, settlement)
        ends = row.status == DeliveryStatus.PENDING and not isinstance(settlement.verdict, Retry)
        if ends and delivery.id not in ended:
            ended.add(delivery.id)
            _count_end(into, settlement)
    return [each for each in found.values() if each.attempts or each.delivered or each.dead]


def _count_attempt(into: Tally, attempt: Attempt, settlement: Settlement) -> None:
    into.attempts += 1
    into.failed_attempts += not isinstance(settlement.verdict, Delivered)
    add(into.durations, attempt.duration)


def _count_end(into: Tally, settlement: Settlement) -> None:
    match settlement.verdict:
        case Delivered():
            into.delivered += 1
            if (latency := settlement.latency) is not None:
                add(into.latencies, latency)
        case Dead():
            into.dead += 1


_ADD = insert(tallies)
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(list[Tally])
