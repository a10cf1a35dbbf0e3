"""How long to wait after a failed attempt."""

from collections.abc import Callable, Sequence
from datetime import timedelta

Rand = Callable[[], float]
"""Answers a number in [0, 1), every one as likely as any other; `random.random` is one."""

RETRY_SCHEDULE: tuple[float, ...] = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds to wait after the first, second … failed attempt: ten attempts in a little over three days."""

JITTER = 0.2
"""Each wait is longer or shorter by up to this part of it, so that what failed together does not come back together."""


def wait_after(failures: int, schedule: Sequence[float], rand: Rand) -> timedelta | None:
    """The wait after the *failures*-th failed attempt (from 1), or None when the schedule is used up."""
    if failures > len(schedule):
        return None
    return timedelta(seconds=schedule[failures - 1] * (1 + JITTER * (2 * rand() - 1)))
