"""How spans of time are spread, in few numbers: sparse buckets of a fixed grid, so that any two can be added up.

Bucket `i` holds spans from `RATIO**i` up to `RATIO**(i + 1)` microseconds, 0 all that are shorter. A percentile is
answered as the geometric middle of its bucket, so it is off by at most `sqrt(RATIO) - 1`, which is less than 5 %
(and by less than a microsecond below one).
"""

import math
from collections.abc import Mapping
from datetime import timedelta

RATIO = 1.1
_LOG_RATIO = math.log(RATIO)
_MICROSECOND = timedelta(microseconds=1)

Histogram = dict[int, int]
"""How many spans each bucket holds; those that hold none are left out."""


def add(histogram: Histogram, span: timedelta) -> None:
    """Count *span*; one below zero, from a clock that was set back, counts as none at all."""
    bucket = _bucket(span / _MICROSECOND)
    histogram[bucket] = histogram.get(bucket, 0) + 1


def merge(into: Histogram, other: Mapping[int, int]) -> None:
    """Count in *into* all that *other* has counted."""
    for bucket, count in other.items():
        into[bucket] = into.get(bucket, 0) + count


def percentile(histogram: Mapping[int, int], percent: float) -> timedelta | None:
    """The span that *percent* of 100 do not exceed (the nearest rank); None where nothing was counted."""
    rank = max(1, math.ceil(sum(histogram.values()) * percent / 100))
    for bucket in sorted(histogram):
        rank -= histogram[bucket]
        if rank <= 0:
            return timedelta(microseconds=RATIO ** (bucket + 0.5))
    return None


def _bucket(micros: float) -> int:
    return 0 if micros < RATIO else int(math.log(micros) / _LOG_RATIO)
