"""What became of one event, subscription by subscription: its deliveries, and what it was judged by."""

from collections.abc import Sequence

from sqlalchemy import func, select

from gateway.events import LoggedEvent
from gateway.keys import holds
from gateway.listing import EXAMINED_ROWS, Listing
from gateway.ports.desk import MOST_OUTCOMES, DeliveryRecord, Outcome
from gateway.storage.connection import Connection
from gateway.storage.delivery_records import record_of, records
from gateway.storage.fanout import fanout_cursor
from gateway.storage.subscription_rows import INTEREST_COLUMNS, interest_for
from gateway.storage.tables import deliveries, subscriptions


async def read_outcomes(
    connection: Connection,
    event: LoggedEvent,
    *,
    libraries: frozenset[str] | None,
    limit: int,
    before: str | None,
) -> Listing[Outcome, str]:
    """See `gateway.ports.desk.DeliveryDesk.outcomes`."""
    examined = (
        select(subscriptions.c.id, subscriptions.c.libraries)
        .order_by(subscriptions.c.id.desc())
        .limit(limit + 1 if libraries is None else EXAMINED_ROWS)
    )
    if before is not None:
        examined = examined.where(subscriptions.c.id < before)
    rows = (await connection.execute(examined)).all()
    seen = [row.id for row in rows if holds(libraries, row.libraries)]
    shown = seen[:limit]
    if not shown:
        return Listing((), rows[-1].id if len(rows) == EXAMINED_ROWS else None)
    fanned_out = await fanout_cursor(connection)
    made = await _deliveries(connection, event, shown)
    wanted = (
        select(*(subscriptions.c[name] for name in INTEREST_COLUMNS))
        .where(subscriptions.c.id.in_(shown))
        .order_by(subscriptions.c.id.desc())
    )
    outcomes: list[Outcome] = []
    for row in await connection.execute(wanted):
        interest, is_known = interest_for(row, event.cursor)
        outcomes.append(
            Outcome(
                subscription_id=row.id,
                deliveries=tuple(made.get(row.id, ())),
                interest=interest,
                is_known=is_known,
                fanned_out=fanned_out,
            )
        )
    if len(seen) > limit:
        return Listing(tuple(outcomes), shown[-1])
    return Listing(tuple(outcomes), rows[-1].id if len(rows) == EXAMINED_ROWS else None)


async def _deliveries(
    connection: Connection, event: LoggedEvent, subscription_ids: Sequence[str]
) -> dict[str, list[DeliveryRecord]]:
    newest_first = func.row_number().over(partition_by=deliveries.c.subscription_id, order_by=deliveries.c.id.desc())
    numbered = (
        select(deliveries.c.id, newest_first.label("number"))
        .where(
            deliveries.c.event_id == event.id,
            deliveries.c.cursor == event.cursor,
            # As an expression, so that the engine goes by the event: a subscription may have millions of deliveries.
            deliveries.c.subscription_id.concat("").in_(subscription_ids),
        )
        .subquery("numbered")
    )
    found: dict[str, list[DeliveryRecord]] = {}
    those = (
        records()
        .join(numbered, numbered.c.id == deliveries.c.id)
        .where(numbered.c.number <= MOST_OUTCOMES)
        .order_by(deliveries.c.id.desc())
    )
    for row in await connection.execute(those):
        found.setdefault(row.subscription_id, []).append(record_of(row))
    return found
