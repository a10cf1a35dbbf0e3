"""Times of acceptance as stretches of the log: they run with it, so that a time is found by bisection."""

from dataclasses import dataclass
from datetime import datetime

from gateway.storage.connection import Connection
from gateway.storage.log import first_since, position
from gateway.storage.tables import log


@dataclass(frozen=True, slots=True)
class Stretch:
    """The cursors from `first` on and before `end`; None: from the beginning, or to the end."""

    first: int | None
    end: int | None

    def holds(self, cursor: int) -> bool:
        return (self.first is None or self.first <= cursor) and (self.end is None or cursor < self.end)


async def stretch_between(connection: Connection, since: datetime | None, until: datetime | None) -> Stretch:
    """The places of events accepted at *since* or later, and before *until*.

    Of events that have left the log nothing is known but that they came before the others: a *since* from their time
    means all of them, and so does an *until*.
    """
    if since is None and until is None:
        return Stretch(None, None)
    where = await position(connection)
    dropped_until = await connection.scalar(log.select().with_only_columns(log.c.dropped_until))
    from_dropped = since is not None and dropped_until is not None and since <= dropped_until
    return Stretch(
        first=None if since is None or from_dropped else await first_since(connection, where, since),
        end=None if until is None else await first_since(connection, where, until),
    )
