"""Deliveries that nobody waits for: kept aside while those that can be sent at once are made.

An event for fifty receivers that do not answer and one that does is fifty-one rows. The one is worth a commit of its
own; the fifty are made a moment later, with those of other events.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from gateway.events import Cursor, LoggedEvent
from gateway.ports.fanout import Wanted

PUT_OFF_SECONDS = 0.1
"""How long at most; sooner in a pause of a fifth of that."""
PUT_OFF_AT_MOST = 500
"""With so many deliveries aside they are made, whatever the time."""
WORTH_IT = 8
"""Fewer than so many are made with the others."""


class PutOff:
    """What is aside, by event, and who is behind for it."""

    def __init__(self, seconds: float = PUT_OFF_SECONDS) -> None:
        self._seconds = seconds
        self._aside: list[Wanted] = []
        self._behind: dict[str, Cursor] = {}
        self._size = 0
        self._latest = self._soon = 0.0

    @property
    def behind(self) -> Mapping[str, Cursor]:
        """Subscriptions that lack deliveries, and the last event before the first of these."""
        return self._behind

    @property
    def is_due(self) -> bool:
        """Whether what is aside is to be made now."""
        return self._size >= PUT_OFF_AT_MOST or (bool(self._aside) and self.seconds_left(1) <= 0)

    def seconds_left(self, at_most: float) -> float:
        """Until it is due."""
        if not self._aside:
            return at_most
        until = min(self._latest, self._soon)
        return min(at_most, max(0.0, until - asyncio.get_running_loop().time()))

    def sift(self, wanted: Sequence[Wanted], *, is_stuck: Callable[[str], bool]) -> list[Wanted]:
        """Put aside what can wait, and answer the rest.

        Whoever is behind stays so until all is made, so that everybody has theirs in the order of the log. A lane that
        moves again meanwhile waits for that, too.
        """
        names = {id_ for _, ids in wanted for id_ in ids}
        stuck = {id_ for id_ in names - self._behind.keys() if is_stuck(id_)}
        if not self._behind and len(stuck) < WORTH_IT:
            return list(wanted)
        can_wait = stuck | self._behind.keys()
        at_once: list[Wanted] = []
        for event, ids in wanted:
            later = [id_ for id_ in ids if id_ in can_wait]
            if later:
                self._put(event, later)
            if len(later) < len(ids):
                at_once.append((event, [id_ for id_ in ids if id_ not in can_wait]))
        return at_once

    def take(self) -> list[Wanted]:
        """All that is aside, to be made now."""
        aside = self._aside
        self.clear()
        return aside

    def clear(self) -> None:
        self._aside, self._behind, self._size = [], {}, 0

    def _put(self, event: LoggedEvent, ids: Sequence[str]) -> None:
        now = asyncio.get_running_loop().time()
        if not self._aside:
            self._latest = now + self._seconds
        self._soon = now + self._seconds / 5
        self._aside.append((event, ids))
        self._size += len(ids)
        for id_ in ids:
            self._behind.setdefault(id_, Cursor(event.cursor - 1))
