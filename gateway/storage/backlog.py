"""What is owed and due first: a step or two in an index for each subscription, however long its backlog."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, bindparam, select

from gateway.storage.connection import Connection
from gateway.storage.tables import LIVE, PENDING, REPLAYED, deliveries, subscriptions
from webhooks.endpoints import Status


async def earliest_due(connection: Connection) -> dict[str, datetime]:
    """Of every active subscription that owes anything: when the first of it is due."""
    found = {id_: _earliest(moments) for id_, *moments in await connection.execute(_OF_ACTIVE)}
    return {id_: moment for id_, moment in found.items() if moment is not None}


async def earliest_due_of(connection: Connection, subscription_id: str) -> datetime | None:
    """When the first of what *subscription_id* owes is due; None: it owes nothing."""
    return _earliest((await connection.execute(_OF_ONE, {"subscription_id": subscription_id})).one())


def _earliest(moments: Any) -> datetime | None:  # noqa: ANN401 - a row
    return min((moment for moment in moments if moment is not None), default=None)


def _first(subscription_id: ColumnElement[str], rank: int) -> ScalarSelect[Any]:
    return (
        select(deliveries.c.due_at)
        .where(deliveries.c.subscription_id == subscription_id, deliveries.c.rank == rank, PENDING)
        .order_by(deliveries.c.due_at)
        .limit(1)
        .scalar_subquery()
    )


# Made once: to put them together takes longer than to run them.
_OF_ACTIVE = select(subscriptions.c.id, *(_first(subscriptions.c.id, rank) for rank in (LIVE, REPLAYED))).where(
    subscriptions.c.status == Status.ACTIVE.value
)
_OF_ONE = select(*(_first(bindparam("subscription_id"), rank) for rank in (LIVE, REPLAYED)))
