"""From what each repeat found to one figure: the median, how far the repeats lie apart, and the ratio to a baseline.

Value ─ one figure of one repeat ─┐
Usage ─ one process, meanwhile ───┼─▶ Reading ─ of every repeat ─▶ Measurement: Figures, usages, the ledger of all
Ledger ───────────────────────────┘
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.bench.ledger import Ledger

BUSY = 0.9
"""A load generator of one thread that takes so much of a core could not have given more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A figure, once. *baseline*: what stands beside it, measured in the same repeat."""

    name: str
    unit: str
    value: float
    baseline: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process took of the processor. *seconds*: for how long one looked."""

    name: str
    is_load: bool
    """It makes the load or takes it, and is not what is measured."""
    cpu_seconds: float
    seconds: float

    @property
    def share(self) -> float:
        """Of one core."""
        return self.cpu_seconds / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one repeat found."""

    name: str
    values: tuple[Value, ...]
    usages: tuple[Usage, ...]
    ledger: Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure over all repeats."""

    name: str
    unit: str
    spread: Spread
    baseline: Spread | None

    @property
    def ratio(self) -> float | None:
        """Of the medians."""
        if self.baseline is None or self.baseline.median == 0:
            return None
        return self.spread.median / self.baseline.median


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One name over all repeats."""

    mode: str
    name: str
    figures: tuple[Figure, ...]
    usages: tuple[Usage, ...]
    """Of each process the one with the median share."""
    ledger: Ledger
    """Of all repeats together; it balances if each of them did."""
    is_void: bool

    @property
    def bottlenecks(self) -> tuple[str, ...]:
        """Load generators that were at their end."""
        return tuple(usage.name for usage in self.usages if usage.is_load and usage.share >= BUSY)


def measurement(mode: str, readings: Sequence[Reading]) -> Measurement:
    """Out of all repeats of one measurement: each has the same figures and the same processes."""
    first = readings[0]
    ledger = first.ledger
    for reading in readings[1:]:
        ledger += reading.ledger
    return Measurement(
        mode=mode,
        name=first.name,
        figures=tuple(_figure([reading.values[place] for reading in readings]) for place in range(len(first.values))),
        usages=tuple(_middle([reading.usages[place] for reading in readings]) for place in range(len(first.usages))),
        ledger=ledger,
        is_void=not all(reading.ledger.balances for reading in readings),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of *values* that *percent* of 100 do not exceed (the nearest rank).

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]


def _figure(values: Sequence[Value]) -> Figure:
    baselines = tuple(value.baseline for value in values if value.baseline is not None)
    return Figure(
        name=values[0].name,
        unit=values[0].unit,
        spread=Spread(values=tuple(value.value for value in values)),
        baseline=Spread(values=baselines) if baselines else None,
    )


def _middle(usages: Sequence[Usage]) -> Usage:
    return sorted(usages, key=lambda usage: usage.share)[len(usages) // 2]
