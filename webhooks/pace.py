"""At most so many attempts a second, evenly spread: no bursts, and no drift from timers that fire late."""

from datetime import datetime, timedelta

_LATENESS = timedelta(milliseconds=20)
"""A timer may fire this late without the average falling below the rate. As much is all that can come at once."""


class Pace:
    def __init__(self, per_second: float | None) -> None:
        self._interval = None if per_second is None else timedelta(seconds=1 / per_second)
        self._next: datetime | None = None

    def next_at(self, now: datetime) -> datetime:
        """When the next attempt may start: *now*, or later."""
        return now if self._next is None else max(self._next, now)

    def spend(self, now: datetime) -> None:
        """An attempt starts."""
        if self._interval is not None:
            earliest = now - min(_LATENESS, self._interval)
            self._next = (now if self._next is None else max(self._next, earliest)) + self._interval
