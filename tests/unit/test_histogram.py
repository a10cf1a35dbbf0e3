"""Percentiles out of few numbers: how far they may be off, and that histograms add up."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from gateway.rollups.histogram import RATIO, Histogram, add, merge, percentile

MICROSECOND = timedelta(microseconds=1)
SPANS = st.lists(st.integers(0, 10**12), min_size=1, max_size=200)
PERCENTS = st.sampled_from([0, 1, 50, 90, 95, 99, 99.9, 100])


def histogram_of(spans: list[int]) -> Histogram:
    made: Histogram = {}
    for span in spans:
        add(made, span * MICROSECOND)
    return made


def exact(spans: list[int], percent: float) -> int:
    """The nearest rank: the smallest span that is not exceeded by *percent* of them, counted without floats."""
    needed = max(1, -(-len(spans) * round(percent * 10) // 1000))
    return sorted(spans)[needed - 1]


@given(SPANS, PERCENTS)
def test_a_percentile_is_within_five_percent_of_the_exact_one(spans: list[int], percent: float) -> None:
    found = percentile(histogram_of(spans), percent)
    assert found is not None
    truth = exact(spans, percent)
    # The stated bound is sqrt(RATIO) - 1; beside it, spans are whole microseconds here.
    assert abs(found / MICROSECOND - truth) <= truth * (RATIO**0.5 - 1) * 1.0001 + 1
    assert RATIO**0.5 - 1 < 0.05


@given(SPANS, SPANS)
def test_two_merged_are_what_both_counted(one: list[int], other: list[int]) -> None:
    merged = histogram_of(one)
    merge(merged, histogram_of(other))
    assert merged == histogram_of(one + other)


def test_nothing_has_no_percentile() -> None:
    assert percentile({}, 50) is None


def test_a_span_below_zero_counts_as_none() -> None:
    backwards: Histogram = {}
    add(backwards, timedelta(seconds=-5))
    assert backwards == histogram_of([0])


def test_what_was_merged_stays_as_it_was() -> None:
    one, other = histogram_of([5]), histogram_of([5, 7000])
    merge(one, other)
    assert other == histogram_of([5, 7000])
