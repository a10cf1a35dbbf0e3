"""What was found, for people and for programs."""

import os
import platform
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from gateway.bench.figures import Figure, Measurement, Spread, Usage
from gateway.version import __version__


def document(
    found: Sequence[Measurement], *, repeats: int, started_at: datetime, load_average: float
) -> dict[str, Any]:
    """All of it, as JSON has it. `void`: a ledger does not balance, and nothing of this may be used.

    *load_average* is the machine's, before it began.
    """
    return {
        "gateway": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "load_average": round(load_average, 2),
        "started_at": started_at.isoformat(),
        "repeats": repeats,
        "void": is_void(found),
        "measurements": [_measurement(one) for one in found],
    }


def is_void(found: Sequence[Measurement]) -> bool:
    return any(one.is_void for one in found)


def show(found: Sequence[Measurement], console: Console) -> None:
    """A table a measurement, and beneath it what speaks against believing it."""
    for one in found:
        table = Table(
            "", "median", "min – max", "baseline", "ratio", title=f"{one.mode}: {one.name}", title_justify="left"
        )
        for column in table.columns[1:]:
            column.justify = "right"
        for figure in one.figures:
            table.add_row(*_row(figure))
        for usage in one.usages:
            table.add_row(f"CPU: {usage.name}", f"{usage.share:.0%} of a core", "", "", "")
        console.print(table)
        for line in remarks(one):
            console.print(line, style="bold red", markup=False, highlight=False)
        console.print(_ledger_line(one), style="dim", markup=False, highlight=False)
        console.print()


def remarks(one: Measurement) -> Iterator[str]:
    """What speaks against believing it."""
    if one.is_void:
        yield "VOID: the ledger does not balance, so these figures say nothing."
    if one.ledger.refused:
        yield f"{one.ledger.refused} events were refused: this was more than the gateway takes."
    for name in one.bottlenecks:
        yield f"The load generator was the bottleneck: {name}."


def _row(figure: Figure) -> tuple[str, str, str, str, str]:
    spread = figure.spread
    return (
        figure.name,
        f"{_number(spread.median)} {figure.unit}",
        f"{_number(spread.low)} – {_number(spread.high)}",
        "" if figure.baseline is None else _number(figure.baseline.median),
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
    )


def _ledger_line(one: Measurement) -> str:
    ledger = one.ledger
    owed = f" + {ledger.owed} owed" if ledger.owed else ""
    ends = f"{ledger.delivered} delivered + {ledger.dead} dead{owed} + {ledger.missing} missing"
    line = f"ledger: {ledger.published} published = {ends}"
    more = [f"{count} {word}" for word, count in (("again", ledger.again), ("strange", ledger.strange)) if count]
    return "; ".join([line, *more])


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _measurement(one: Measurement) -> dict[str, Any]:
    return {
        "mode": one.mode,
        "name": one.name,
        "void": one.is_void,
        "figures": [_figure(figure) for figure in one.figures],
        "processes": [_usage(usage) for usage in one.usages],
        "bottlenecks": list(one.bottlenecks),
        "ledger": {**one.ledger.counts, "missing": one.ledger.missing},
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        "unit": figure.unit,
        **_spread(figure.spread),
        "baseline": None if figure.baseline is None else _spread(figure.baseline),
        "ratio": figure.ratio,
    }


def _spread(spread: Spread) -> dict[str, Any]:
    return {"median": spread.median, "min": spread.low, "max": spread.high, "values": list(spread.values)}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "name": usage.name,
        "load": usage.is_load,
        "cpu_seconds": round(usage.cpu_seconds, 3),
        "seconds": round(usage.seconds, 3),
        "share": round(usage.share, 3),
    }
