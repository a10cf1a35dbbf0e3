"""What a batch of settlements came to, in one row beside it: all that settling writes for statistics.

Only what the batch has changed is counted. One that is stored again, because its commit broke, finds its attempts and
verdicts there, and counts nothing.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Row, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.histogram import Histogram, add
from gateway.rollups import Figures, Interval
from gateway.storage.tables import tallies
from gateway.times import from_micros, to_micros
from webhooks.deliveries import Attempt, DeliveryStatus, Settlement
from webhooks.verdicts import Dead, Delivered, Retry


class Tally(msgspec.Struct, array_like=True):
    """The figures of one minute, subscription, type and library."""

    minute: int
    subscription_id: str
    type: str
    library_id: str
    attempts: int
    failed_attempts: int
    delivered: int
    dead: int
    durations: Histogram
    latencies: Histogram

    @property
    def moment(self) -> datetime:
        return from_micros(self.minute)

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


async def tally(connection: AsyncConnection, settled: Iterable[tuple[Settlement, Row[Any]]]) -> None:
    """Count *settled*, each with its delivery's row as it was before."""
    if counted := _counted(settled):
        await connection.execute(insert(tallies), {"figures": _ENCODER.encode(counted)})


def decoded(figures: bytes) -> list[Tally]:
    return _DECODER.decode(figures)


async def all_tallies(connection: AsyncConnection) -> list[Tally]:
    """Those that are not in the rollups yet."""
    rows = (await connection.execute(select(tallies.c.figures))).scalars()
    return [each for figures in rows for each in decoded(figures)]


def _counted(settled: Iterable[tuple[Settlement, Row[Any]]]) -> list[Tally]:
    found: dict[tuple[int, str, str, str], Tally] = {}
    attempts: set[tuple[str, int]] = set()
    ended: set[str] = set()
    for settlement, row in settled:
        delivery, attempt = settlement.delivery, settlement.attempt
        minute = to_micros(Interval.MINUTE.start(settlement.at))
        key = (minute, delivery.endpoint_id, delivery.event_type, delivery.library_id)
        if (into := found.get(key)) is None:
            into = found[key] = Tally(*key, 0, 0, 0, 0, {}, {})
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


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(list[Tally])
