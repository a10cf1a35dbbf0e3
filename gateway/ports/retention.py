"""What is too old leaves."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from gateway.events import Cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What one batch of retention has done to the log."""

    events: int
    owing: frozenset[str]
    """Subscriptions with deliveries that have expired with it."""
    more: bool
    """Whether it ended for its size, so that there may be more to do."""


class RetentionStore(Protocol):
    """Takes away what is too old, in batches that are small enough for others to wait for.

    Each may be called again, and by several processes at once. Where an int is answered it counts rows: fewer than
    *limit* mean that nothing is left to do.
    """

    async def drop_events(
        self, *, before: datetime, passed: Cursor, limit: int, max_bytes: int, most_owed: int
    ) -> Dropped:
        """Drop the first events of the log that were accepted before *before*, at most *limit* and about *max_bytes*.

        None beyond *passed*, nor beyond what the fan-out has passed. A pending delivery of a leaving event becomes
        dead (`expired`), which is told, no later than its event leaves; at most *most_owed* of them in one batch.
        That the log begins later, and up to when, is known from the same moment on.
        """

    async def drop_attempts(self, *, before: datetime, limit: int) -> int:
        """Drop attempts that started before *before*."""

    async def drop_deliveries(self, *, before: datetime, limit: int) -> int:
        """Drop deliveries that were settled before *before*, with the attempts that they have left. Never pending
        ones."""

    async def drop_remains(self, *, before: datetime, limit: int) -> int:
        """Drop what no delivery refers to any more: replays made before *before*, and what is known of subscriptions
        whose deletion has left the log."""
