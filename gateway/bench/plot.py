"""Bars of what was found. It needs matplotlib, which the gateway does not."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure as Sheet

from gateway.bench.figures import Figure, Measurement

INCHES_A_FIGURE = 1.1


def draw(found: Sequence[Measurement], file: Path) -> None:
    """A bar a figure, from the least to the most of the repeats marked; beside it its baseline, where it has one."""
    drawn = [(one, figure) for one in found for figure in one.figures]
    sheet = Sheet(figsize=(10, max(2.0, INCHES_A_FIGURE * len(drawn))), layout="constrained")
    all_axes = sheet.subplots(len(drawn), 1, squeeze=False)[:, 0]
    for axes, (one, figure) in zip(all_axes, drawn, strict=True):
        labels, medians, spreads = _bars(figure)
        axes.barh(labels, medians, xerr=spreads, color=["#3572a5", "#b0b0b0"][: len(labels)], capsize=3)
        axes.invert_yaxis()
        void = " (void)" if one.is_void else ""
        axes.set_title(f"{one.mode}{void}: {one.name} — {figure.name}, {figure.unit}", loc="left", fontsize=8)
        axes.tick_params(labelsize=7)
    sheet.savefig(file)


def _bars(figure: Figure) -> tuple[list[str], list[float], list[list[float]]]:
    bars = [("gateway", figure.spread), *([("baseline", figure.baseline)] if figure.baseline is not None else [])]
    below = [spread.median - spread.low for _, spread in bars]
    above = [spread.high - spread.median for _, spread in bars]
    return [label for label, _ in bars], [spread.median for _, spread in bars], [below, above]
