"""How far the fan-out has come, and the deliveries that it makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.events import Cursor, LoggedEvent
from webhooks.deliveries import Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class FanoutPlace:
    """How far the fan-out has come."""

    cursor: Cursor
    """Events up to it have all their deliveries."""
    ahead: Cursor = Cursor(0)
    """Those after it, up to here, have theirs but for subscriptions that are behind; before the cursor: none have."""
    behind: Mapping[str, Cursor] = field(default_factory=dict)
    """Subscriptions that lack what they want of the events after this one."""


Wanted = tuple[LoggedEvent, Sequence[str]]
"""An event, and the ids of subscriptions that it is for."""


class FanoutStore(Protocol):
    async def place(self) -> FanoutPlace: ...

    async def advance(
        self, since: FanoutPlace, to: FanoutPlace, wanted: Sequence[Wanted]
    ) -> Mapping[str, Sequence[Delivery]] | None:
        """Create the deliveries that are *wanted* and move to the new place, together.

        What it creates it answers by subscription. None, and nothing is written, when the place is not *since*: another
        process has moved it.
        """
