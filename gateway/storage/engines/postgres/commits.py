"""Commits that end side by side, told of in the order of the log."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gateway.events import LoggedEvent


@dataclass(slots=True, eq=False)
class Turn:
    """A place in the order, for a transaction that has appended to the log and is about to commit."""

    appended: list[LoggedEvent]
    is_over: bool = False


class InOrder:
    """Whoever appends holds the log's row until the commit, so that turns are taken in the order of the log; the
    answers to the commits may come in another."""

    def __init__(self, announce: Callable[[list[LoggedEvent]], None]) -> None:
        self._announce = announce
        self._turns: deque[Turn] = deque()

    def take(self, appended: list[LoggedEvent]) -> Turn:
        turn = Turn(appended)
        self._turns.append(turn)
        return turn

    def end(self, turn: Turn, *, committed: bool) -> None:
        turn.is_over = True
        if not committed:
            turn.appended = []
        while self._turns and self._turns[0].is_over:
            self._announce(self._turns.popleft().appended)
