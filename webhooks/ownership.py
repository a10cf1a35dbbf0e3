"""Whose lanes they are, where several processes share a store.

    granted ──▶ held ──renewed every 3 s, for 10 s from before it was asked for──▶ held
                  └────not renewed in time──▶ lapsed, for good: what comes after it is another lease

A process sends for a lane while it holds its lease, and while the lane is its own. Another one may take the lane when
it was given back, or when that lease has lapsed and so much time has passed since that no attempt of it can be left.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

LEASE_SECONDS = 10.0
RENEW_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One lane as this process has it."""

    term: int
    """Rises whenever the lane is taken: what was begun in a former term is not stored any more."""
    quiet_since: datetime | None = None
    """Until then others may have sent; None: nobody ever did."""


class Holder(Protocol):
    """Knows which lanes are this process's own."""

    @property
    def may_send(self) -> bool:
        """Whether an attempt may begin now, in any lane that is held. Asked right before each."""

    def hold(self, endpoint_id: str) -> Hold | None:
        """None: its lane is not held. That there may be work for it is noted then."""

    def ended(self, endpoint_id: str) -> None:
        """Its lane, which was held, has ended: it had nothing to do, was to leave, or failed."""


def seconds_awake_or_asleep() -> float:
    """Seconds on a clock that goes on while the process is stopped, and while the machine is suspended."""
    return time.clock_gettime(_CLOCK)


_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Lease:
    """Granted to who asked at *asked_at*, on *clock*: by then the giver cannot have begun to count yet."""

    def __init__(
        self,
        asked_at: float,
        *,
        clock: Callable[[], float] = seconds_awake_or_asleep,
        seconds: float = LEASE_SECONDS,
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._until = asked_at + seconds

    @property
    def is_held(self) -> bool:
        return self._clock() < self._until

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._until - self._clock())

    def renew(self, asked_at: float) -> bool:
        """It was granted anew to who asked at *asked_at*. False: it had lapsed by the time of the answer, and others
        may have acted on that."""
        if not self.is_held:
            return False
        self._until = max(self._until, asked_at + self._seconds)
        return True

    def end(self) -> None:
        """Whoever gave it says that it has lapsed."""
        self._until = self._clock()


def share(lanes: int, nodes: int) -> int:
    """How many of *lanes* one of *nodes* should own."""
    return -(-lanes // max(1, nodes))


def surplus(owned: int, fair: int) -> int:
    """How many of *owned* lanes to give back. A tenth more than is *fair* is let be: they come and go anyway."""
    return owned - fair if owned > fair + fair // 10 else 0
