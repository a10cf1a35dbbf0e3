"""What was begun in a former term of a lane is not stored: another process has gone on from there.

Its attempt is not kept either: the other one counts on from the same number, and has made that attempt by now.
"""

from collections.abc import Sequence

import structlog
from sqlalchemy import bindparam, select

from gateway.storage.connection import Connection
from gateway.storage.tables import lane_owners
from webhooks.deliveries import Settlement

_IDS_AT_ONCE = 500  # parameters in one statement

# Before any other lock, and nobody who changes these rows waits for another one.
_TERMS = (
    select(lane_owners.c.subscription_id, lane_owners.c.term)
    .where(lane_owners.c.subscription_id.in_(bindparam("ids", expanding=True)))
    .order_by(lane_owners.c.subscription_id)
    .with_for_update(read=True)
)

_logger = structlog.get_logger(__name__)


async def in_force(connection: Connection, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
    """Those of *settlements*, one at least, whose lane has not been taken since. Until the transaction ends it cannot
    be."""
    if settlements[0].term is None:  # then none has one: no other process uses the database
        return settlements
    ids = sorted({each.delivery.endpoint_id for each in settlements})
    terms: dict[str, int] = {}
    for start in range(0, len(ids), _IDS_AT_ONCE):
        for row in await connection.execute(_TERMS, {"ids": ids[start : start + _IDS_AT_ONCE]}):
            terms[row.subscription_id] = row.term
    # One that is not there is of a deleted subscription, which nobody takes any more.
    kept = [each for each in settlements if each.term == terms.get(each.delivery.endpoint_id, each.term)]
    if len(kept) < len(settlements):
        _logger.warning("settling.of_a_former_term", count=len(settlements) - len(kept))
    return kept
