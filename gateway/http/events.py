"""`/v1/events`: publish, look back, look one up and what became of it, count."""

import asyncio
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.params import FromPath, RawBody

from gateway.errors import Conflict, CursorGone, Fault, Forbidden, InvalidInput, NotFound, Overloaded
from gateway.events import Cursor, Draft
from gateway.explaining import CREATED_LATER, why_none
from gateway.filters import Candidate
from gateway.http.answers import answer, raw
from gateway.http.auth import Caller, requires
from gateway.http.bodies import parse_query
from gateway.http.confinement import may_see, refuse
from gateway.http.delivery_schemas import DeliveryOut, EventDeliveryOut, delivery_out
from gateway.http.event_schemas import (
    EXAMPLE,
    EXAMPLE_ANSWERED,
    Accepted,
    AcceptedBatch,
    EventIn,
    EventOut,
    EventsQuery,
    EventStatistics,
    event_json,
    filter_of_query,
    page_json,
    receipt_json,
)
from gateway.http.ids import is_id
from gateway.http.operations import Operation, Says, describes
from gateway.http.paging import Paged, PageOf, fingerprint, read_token, write_token
from gateway.http.services import Use
from gateway.intake import read_events
from gateway.keys import Scope
from gateway.ports.desk import Outcome
from gateway.ports.log import HistoryQuery, IdTaken, Misfit

ACCEPTED = Says(description="It is on disk.", content=Accepted | AcceptedBatch)
DUPLICATE = Says(description="It was there before, all of it; nothing is new.", content=Accepted | AcceptedBatch)


class EventController(Controller):
    path = "/v1/events"
    tags = ("Events",)

    @post(
        "/",
        guards=[requires(Scope.PUBLISH)],
        opt=describes(
            Operation(
                summary="Publish one event, or up to 1,000",
                description="A batch is accepted all or none. The answer comes only after the events are on disk; "
                "an event that was answered 202 is never lost. An id that is known with other content is a 409, data "
                "that its type's schema does not allow a 422, and nothing is stored.",
                body=EventIn | list[EventIn],
                body_examples={"one": EXAMPLE, "several": [EXAMPLE, {**EXAMPLE, "type": "search.performed"}]},
                headers={"traceparent": "W3C trace context, passed on to receivers."},
                answers={202: ACCEPTED, 200: DUPLICATE},
                problems=(Forbidden, Conflict, Overloaded),
            )
        ),
    )
    async def publish(self, request: Request[Any, Caller, Any], body: RawBody, services: Use) -> Response[bytes]:
        drafts, is_batch = read_events(body, traceparent=request.headers.get("traceparent"))
        _check_libraries(drafts, request.auth, is_batch=is_batch)
        appended = await services.publisher.publish(drafts)
        if isinstance(appended, IdTaken):
            place = f"/{appended.index}/id" if is_batch else "/id"
            raise Conflict(
                f"the id {appended.id} is known, with other content",
                [Fault(place, "is known, with other content")],
            )
        if isinstance(appended, Misfit):
            faults = [
                Fault(f"/{index}{fault.pointer}" if is_batch else fault.pointer, fault.detail)
                for index, fault in appended.faults
            ]
            raise InvalidInput(f"{faults[0].pointer} {faults[0].detail}", faults)
        position = await services.scribe.position()
        receipts = [receipt_json(receipt, position) for receipt in appended]
        status = HTTPStatus.OK if all(receipt.duplicate for receipt in appended) else HTTPStatus.ACCEPTED
        return raw(msgspec.json.encode({"data": receipts} if is_batch else receipts[0]), status)

    @get(
        "/",
        guards=[requires(Scope.STREAM)],
        opt=describes(
            Operation(
                summary="Look back",
                description="Events that the log holds, newest first unless `order=asc`. At most 10,000 events or "
                "8 MiB are examined for one page, so it may be short or empty and still have a token.",
                query=EventsQuery,
                answers={200: Says(description="A page of them.", content=PageOf[EventOut])},
                problems=(CursorGone,),
            )
        ),
    )
    async def history(self, request: Request[Any, Caller, Any], services: Use) -> Response[bytes]:
        query = parse_query(EventsQuery, request.query_params.multi_items())
        wanted = filter_of_query(library_id=query.library_id, type_=query.type, expression=query.filter)
        position = await services.log.position()
        after = None
        if query.after is not None and (after := position.read(query.after)) is None:
            raise CursorGone("the log does not hold the place that `after` names", [Fault("/after", "is not held")])
        mark = fingerprint("events", query, position.epoch)
        resume = read_token(mark, query.page_token, int)
        page = await services.log.history(
            HistoryQuery(
                filter=wanted,
                libraries=request.auth.libraries,
                since=query.since,
                until=query.until,
                after=after,
                order=query.order,
                resume=None if resume is None else Cursor(resume),
                limit=query.page_size,
            )
        )
        return raw(page_json(page.rows, position, write_token(mark, page.more)))

    @get(
        "/stats",
        guards=[requires(Scope.STREAM, unconfined=True)],
        opt=describes(
            Operation(
                summary="Count",
                answers={200: Says(description="What this process has done since its start.", content=EventStatistics)},
            )
        ),
    )
    async def statistics(self, services: Use) -> Response[bytes]:
        return raw(msgspec.json.encode(dict(services.statistics())))

    @get(
        "/{event_id:str}",
        guards=[requires(Scope.STREAM, Scope.SUBSCRIPTIONS)],
        opt=describes(
            Operation(
                summary="Look one up",
                answers={
                    200: Says(
                        description="The event, with its place in the log.",
                        content=EventOut,
                        example={
                            **EXAMPLE_ANSWERED,
                            "cursor": "k3v9-42",
                            "accepted_at": "2025-10-27T06:01:00.000417Z",
                        },
                    )
                },
                problems=(NotFound,),
            )
        ),
    )
    async def one(self, request: Request[Any, Caller, Any], event_id: FromPath[str], services: Use) -> Response[bytes]:
        event = await services.log.get(event_id) if is_id(event_id) else None
        if event is None or not may_see(request.auth, event):
            raise NotFound("there is no such event")
        return raw(event_json(event, await services.scribe.position()))

    @get(
        "/{event_id:str}/deliveries",
        guards=[requires(Scope.SUBSCRIPTIONS)],
        opt=describes(
            Operation(
                summary="Explain what became of one",
                description="For every subscription that the caller sees, newest first: its delivery, or why there is "
                "none. Where replays made several, each has a row, newest first, 20 at most. `page_size` counts "
                "subscriptions.",
                query=Paged,
                answers={200: Says(description="A page of them.", content=PageOf[EventDeliveryOut])},
                problems=(NotFound,),
            )
        ),
    )
    async def deliveries(
        self, request: Request[Any, Caller, Any], event_id: FromPath[str], services: Use
    ) -> Response[bytes]:
        query = parse_query(Paged, request.query_params.multi_items())
        event = await services.log.get(event_id) if is_id(event_id) else None
        if event is None or not may_see(request.auth, event):
            raise NotFound("there is no such event")
        mark = fingerprint("event-deliveries", query, event_id)
        page = await services.desk.outcomes(
            event,
            libraries=request.auth.libraries,
            limit=query.page_size,
            before=read_token(mark, query.page_token, str),
        )
        candidate, rows = Candidate(event), list[EventDeliveryOut]()
        for outcome in page.rows:
            rows += _explained(candidate, outcome)
            await asyncio.sleep(0)  # an expression on a large event takes its time
        return answer(PageOf[EventDeliveryOut](data=rows, next_page_token=write_token(mark, page.more)))


def _explained(candidate: Candidate, outcome: Outcome) -> Iterator[EventDeliveryOut]:
    for record in outcome.deliveries:
        yield EventDeliveryOut(
            subscription_id=outcome.subscription_id,
            delivery=DeliveryOut(**delivery_out(record)),
            reason=None,
            by_present_filter=False,
        )
    if not outcome.deliveries:
        reason = why_none(candidate, outcome)
        yield EventDeliveryOut(
            subscription_id=outcome.subscription_id,
            delivery=None,
            reason=reason,
            by_present_filter=not outcome.is_known and reason != CREATED_LATER,
        )


def _check_libraries(drafts: Sequence[Draft], caller: Caller, *, is_batch: bool) -> None:
    if caller.libraries is None:
        return
    refuse(
        {
            f"/{index}/library_id" if is_batch else "/library_id": draft.library_id
            for index, draft in enumerate(drafts)
            if draft.library_id not in caller.libraries
        }
    )
