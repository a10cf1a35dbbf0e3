"""Events as JSON: the models that describe them, and the bytes that are answered.

What is stored is answered byte for byte; the models are for the document, and never stand between the two.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from pydantic import ConfigDict, Field

from gateway.errors import InvalidInput
from gateway.events import LoggedEvent, Position
from gateway.filters import Filter
from gateway.http.answers import Answer, Time
from gateway.http.bodies import Body, Moment
from gateway.http.paging import Paged
from gateway.ports.log import Receipt
from gateway.times import to_rfc3339

LIBRARY = r"^(?!\.+$)(?!gateway$)[A-Za-z0-9_.:-]+$"
TYPE = r"^(?!gateway(\.|$))[a-z0-9_]+(\.[a-z0-9_]+)*$"
EVENT_ID = r"^(?!(stats|stream|ws)$)[A-Za-z0-9_:-]+$"

EXAMPLE: dict[str, Any] = {
    "type": "document.added",
    "library_id": "550e8400-e29b-41d4-a716-446655440000",
    "data": {"document_id": "a1b2c3", "title": "My Document", "num_chunks": 3},
}
EXAMPLE_ANSWERED: dict[str, Any] = {
    "id": "evt_01jb3h5qk8e9vbr1q4z8e9vbr1",
    "type": "document.added",
    "library_id": "550e8400-e29b-41d4-a716-446655440000",
    "timestamp": "2025-10-27T06:01:00.000000Z",
    "data": {"document_id": "a1b2c3", "title": "My Document", "num_chunks": 3},
}


class EventIn(Body):
    """An event to publish, at most 256 KiB. It is `gateway.intake` that reads it."""

    type: Annotated[
        str,
        Field(
            max_length=128,
            description="Dotted lower case; `gateway.*` is the gateway's own.",
            json_schema_extra={"pattern": TYPE},
        ),
    ]
    library_id: Annotated[
        str, Field(max_length=128, description="Whose event it is.", json_schema_extra={"pattern": LIBRARY})
    ]
    data: Annotated[dict[str, Any], Field(description="Any JSON object, at most 64 deep; kept as it was written.")]
    timestamp: Annotated[Moment, Field(description="When it happened; the time of arrival if left out.")] = Field(
        default_factory=lambda: None
    )
    id: Annotated[
        str,
        Field(
            min_length=1,
            max_length=128,
            description="The idempotency key: the same id with the same content is stored once.",
            json_schema_extra={"pattern": EVENT_ID},
        ),
    ] = Field(default_factory=str)


class EventBody(Answer):
    """An event, as receivers are sent it and streams carry it."""

    id: str
    type: str
    library_id: str
    timestamp: Time
    data: dict[str, Any]


class EventOut(EventBody):
    """An event in the log."""

    cursor: Annotated[str, Field(description="Its place in the log: opaque, at most 64 of `[A-Za-z0-9_-]`.")]
    accepted_at: Time


class Accepted(Answer):
    """Where a published event stands in the log."""

    id: str
    cursor: str
    duplicate: Annotated[bool, Field(description="Whether it was there before, with the same content.")]


class AcceptedBatch(Answer):
    data: list[Accepted]


class EventStatistics(Answer):
    """This process since its start; the gateway's own events are not counted."""

    model_config = ConfigDict(extra="allow")

    total_published: int
    total_delivered: int
    active_subscribers: int
    queue_size: int
    events_by_type: dict[str, int]
    average_delivery_latency_ms: float
    uptime_seconds: float


class EventsQuery(Paged):
    """The filter, and when: `since` (inclusive) and `until` (exclusive) are times of acceptance."""

    library_id: Annotated[list[str] | None, Field(description="Any of these; none: all that the caller may see.")] = (
        None
    )
    type: Annotated[list[str] | None, Field(description="Any of these: exact, a branch `document.*`, or `*`.")] = None
    filter: Annotated[
        str | None,
        Field(description="A CEL expression over `event`.", examples=['event.data.priority == "high"']),
    ] = None
    since: Moment = None
    until: Moment = None
    after: Annotated[str | None, Field(description="A cursor: only events beyond it, in either order.")] = None
    order: Literal["desc", "asc"] = "desc"


def filter_of_query(*, library_id: list[str] | None, type_: list[str] | None, expression: str | None = None) -> Filter:
    """The filter of a query, its faults named as the query's parameters are."""
    try:
        return Filter.parse(library_ids=library_id, types=type_, expression=expression)
    except InvalidInput as error:
        renamed = [
            type(fault)(
                fault.pointer.replace("/library_ids", "/library_id", 1).replace("/types", "/type", 1), fault.detail
            )
            for fault in error.faults
        ]
        raise InvalidInput(error.detail, renamed) from None


def event_json(event: LoggedEvent, position: Position) -> bytes:
    """The event as `EventOut`: its stored bytes, with its place behind them."""
    return b'%b,"cursor":"%b","accepted_at":"%b"}' % (
        event.body[:-1],
        position.write(event.cursor).encode(),
        to_rfc3339(event.accepted_at).encode(),
    )


def page_json(events: Sequence[LoggedEvent], position: Position, next_page_token: str | None) -> bytes:
    rows = b",".join(event_json(event, position) for event in events)
    return b'{"data":[%b],"next_page_token":%b}' % (rows, msgspec.json.encode(next_page_token))


def receipt_json(receipt: Receipt, position: Position) -> dict[str, Any]:
    return {"id": receipt.id, "cursor": position.write(receipt.cursor), "duplicate": receipt.duplicate}
