"""Pages of the past for people: a stretch of the log, filtered, never examining more of it than a page may."""

from typing import Any

from sqlalchemy import ColumnElement, false, func, or_, select

from gateway.events import GATEWAY_LIBRARY, GATEWAY_PREFIX, Cursor, LoggedEvent
from gateway.filters import Candidate, Filter, Matcher
from gateway.listing import EXAMINED_BYTES, EXAMINED_ROWS, Listing
from gateway.ports.log import HistoryQuery
from gateway.storage.connection import Connection
from gateway.storage.rows import logged, within
from gateway.storage.tables import events
from gateway.storage.types import below, is_of_type


async def read_history(
    connection: Connection, query: HistoryQuery, first: int, last: int
) -> Listing[LoggedEvent, Cursor]:
    """What matches *query* between the cursors *first* and *last*, both inclusive."""
    rising = query.order == "asc"
    if query.resume is not None:
        first, last = (max(first, query.resume + 1), last) if rising else (first, min(last, query.resume - 1))
    if first > last:
        return Listing((), None)
    # Cursors are contiguous, so a stretch of them bounds the rows that are looked at, whatever matches.
    low, high = (
        (first, min(last, first + EXAMINED_ROWS - 1)) if rising else (max(first, last - EXAMINED_ROWS + 1), last)
    )
    end, whole = (high, high == last) if rising else (low, low == first)

    matcher = Matcher(query.filter, query.libraries)
    order = events.c.cursor.asc() if rising else events.c.cursor.desc()
    wanted = events.c.cursor.between(low, high) & worth_reading(matcher)
    sizes = select(events.c.cursor, func.length(events.c.data)).where(wanted).order_by(order)
    cut = query.limit + 1 if query.filter.expression is None else EXAMINED_ROWS
    found = (await connection.execute(sizes.limit(cut))).all()
    reached = within(found, EXAMINED_BYTES)
    if reached is not None:
        stretch = events.c.cursor.between(low, reached) if rising else events.c.cursor.between(reached, high)
        if reached != found[-1][0] or len(found) == cut:
            end, whole = reached, False
        rows = await connection.execute(select(events).where(wanted, stretch).order_by(order))
        matched: list[LoggedEvent] = []
        for event in map(logged, rows):
            if matcher.matches(Candidate(event)):
                if len(matched) == query.limit:
                    return Listing(tuple(matched), matched[-1].cursor)
                matched.append(event)
        return Listing(tuple(matched), None if whole else Cursor(end))
    return Listing((), None if whole else Cursor(end))


def worth_reading(matcher: Matcher) -> ColumnElement[Any]:
    """What SQL can rule out. The matcher has the last word."""
    filter_ = matcher.filter
    tests: list[ColumnElement[Any]] = []
    if matcher.libraries is not None:
        own = {GATEWAY_LIBRARY} if filter_.names_gateways_own else set[str]()
        tests.append(events.c.library_id.in_(sorted(matcher.libraries | own)))
    tests.append(of_types(filter_))
    return tests[0] if len(tests) == 1 else tests[0] & tests[1]


def of_types(filter_: Filter) -> ColumnElement[Any]:
    """Events of a type that *filter_* means."""
    if filter_.types is None or "*" in filter_.types:
        named = [type_ for type_ in filter_.types or () if type_.startswith(GATEWAY_PREFIX)]
        return or_(~below(events.c.type, GATEWAY_PREFIX), *(is_of_type(events.c.type, name) for name in named))
    return or_(false(), *(is_of_type(events.c.type, name) for name in sorted(filter_.types)))
