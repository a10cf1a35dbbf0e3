"""How many attempts run at once in all lanes together, without a lane ever waiting for its first.

A lane's first attempt is always free. What more it wants comes out of one pot; when that is empty, lanes wait in a row
and each attempt that ends hands its place to the next of them, so that a long backlog takes no more than its turn.
"""

from collections import Counter
from typing import Protocol


class Bidder(Protocol):
    """A lane, as the budget sees it."""

    @property
    def in_flight(self) -> int: ...

    def nudge(self) -> None:
        """There is a place for you: look again whether you can start something."""


class Budget:
    def __init__(self, extra: int) -> None:
        self._left = extra
        self._waiting: dict[Bidder, None] = {}
        self._granted: Counter[Bidder] = Counter()

    def acquire(self, lane: Bidder) -> bool:
        """Whether *lane* may start one more. If not, it is nudged when it may."""
        if lane.in_flight == 0:
            return True
        if self._granted[lane]:
            self._granted[lane] -= 1
            return True
        if self._left > 0:
            self._left -= 1
            return True
        self._waiting[lane] = None
        return False

    def release(self, lane: Bidder) -> None:
        """One of *lane*'s attempts has ended; its `in_flight` says how many are left."""
        if lane.in_flight > 0:
            self._pass_on()

    def settle(self, lane: Bidder) -> None:
        """*lane* has started all it wants for now: what it was granted and does not use goes to the next."""
        for _ in range(self._granted.pop(lane, 0)):
            self._pass_on()

    def leave(self, lane: Bidder) -> None:
        """*lane* ends."""
        self._waiting.pop(lane, None)
        self.settle(lane)

    def _pass_on(self) -> None:
        for lane in self._waiting:
            del self._waiting[lane]
            self._granted[lane] += 1
            lane.nudge()
            return
        self._left += 1
