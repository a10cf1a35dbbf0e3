"""At most so many attempts a second, evenly spread: no bursts, and no drift from timers that fire late."""

from datetime import datetime, timedelta

_LATENESS = timedelta(milliseconds=20)
"""A timer may fire this late without the average falling below the rate. As much is all that can come at once."""
_REST = timedelta(milliseconds=100)
"""What starts later than this after its turn was not late, but had nothing to send: the spread begins with it anew."""


class Pace:
    def __init__(self, per_second: float | None) -> None:
        self._spent: datetime | None = None
        """The turn that was taken last."""
        self.change(per_second)

    def change(self, per_second: float | None) -> None:
        """Another rate, from the attempt that started last on: changing it buys no attempt."""
        self._interval = None if per_second is None else timedelta(seconds=1 / per_second)

    def next_at(self, now: datetime) -> datetime:
        """When the next attempt may start: *now*, or later."""
        turn = self._turn()
        return now if turn is None else max(turn, now)

    def spend(self, now: datetime) -> None:
        """An attempt starts."""
        turn = self._turn()
        if turn is None or self._interval is None or now - turn > _REST:
            self._spent = now
        else:
            self._spent = max(turn, now - min(_LATENESS, self._interval))

    def _turn(self) -> datetime | None:
        return None if self._spent is None or self._interval is None else self._spent + self._interval
