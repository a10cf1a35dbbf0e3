"""Pages of deliveries for people, newest first, never examining more rows than a page may.

A question goes by the index that leaves the least to look at; what that index does not tell is tested row by row.
"""

from typing import Any

from sqlalchemy import Row, Select

from gateway.keys import holds
from gateway.listing import EXAMINED_ROWS, Listing
from gateway.ports.desk import DeliveryQuery, DeliveryRecord
from gateway.storage.connection import Connection
from gateway.storage.delivery_records import record_of, records
from gateway.storage.stretches import Stretch, stretch_between
from gateway.storage.tables import DEAD, deliveries
from webhooks.deliveries import DeliveryStatus

_MORE_AT_ONCE = 1000
"""Rows of each further look, when the first, as large as a page, was not enough."""


async def list_deliveries(connection: Connection, query: DeliveryQuery) -> Listing[DeliveryRecord, str]:
    stretch = await stretch_between(connection, query.since, query.until)
    found: list[DeliveryRecord] = []
    examined, resume, at_once = 0, query.resume, query.limit + 1
    while examined < EXAMINED_ROWS:
        at_once = min(at_once, EXAMINED_ROWS - examined)
        rows = (await connection.execute(newest(query, resume).limit(at_once))).all()
        for row in rows:
            if _is_past(row, stretch):
                return Listing(tuple(found), None)
            if _matches(row, query, stretch):
                if len(found) == query.limit:
                    return Listing(tuple(found), found[-1].id)
                found.append(record_of(row))
        if len(rows) < at_once:
            return Listing(tuple(found), None)
        examined, resume, at_once = examined + len(rows), rows[-1].id, _MORE_AT_ONCE
    return Listing(tuple(found), resume)


def newest(query: DeliveryQuery, resume: str | None) -> Select[Any]:
    """Candidates, newest first, by the best index there is."""
    candidates = records().order_by(deliveries.c.id.desc())
    if query.event_id is not None:
        candidates = candidates.where(deliveries.c.event_id == query.event_id)
    elif query.subscription_id is not None:
        candidates = candidates.where(deliveries.c.subscription_id == query.subscription_id)
    if query.status is DeliveryStatus.DEAD and query.event_id is None:
        candidates = candidates.where(DEAD)
    return candidates if resume is None else candidates.where(deliveries.c.id < resume)


def _matches(row: Row[Any], query: DeliveryQuery, stretch: Stretch) -> bool:
    return (
        holds(query.libraries, row.libraries)
        and query.subscription_id in {None, row.subscription_id}
        and query.status in {None, row.status}
        and query.library_id in {None, row.library_id}
        and query.type in {None, row.type}
        and stretch.holds(row.cursor)
    )


def _is_past(row: Row[Any], stretch: Stretch) -> bool:
    """Whether all that is older than *row* is before *stretch*: the fan-out follows the log, so what it made before
    *row* lies before it in the log, and what was sent again before *row* was made had been in the log by then."""
    return stretch.first is not None and row.cursor < stretch.first and row.replay_id is None
