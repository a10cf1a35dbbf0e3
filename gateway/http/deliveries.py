"""`/v1/deliveries`: what became of each event for each subscription, and what a person can do about it."""

from http import HTTPStatus
from typing import Any

from litestar import Controller, Request, Response, get, post
from litestar.params import FromPath

from gateway.errors import Conflict, NotFound
from gateway.http.answers import answer
from gateway.http.auth import Caller, requires
from gateway.http.bodies import parse_query
from gateway.http.delivery_schemas import (
    AttemptOut,
    DeadLettersQuery,
    DeliveriesQuery,
    DeliveryOut,
    DeliveryWithAttempts,
    attempt_out,
    delivery_out,
)
from gateway.http.ids import is_id
from gateway.http.operations import Operation, Says, describes
from gateway.http.paging import PageOf, fingerprint, read_token, write_token
from gateway.http.services import Services, Use
from gateway.keys import Scope
from gateway.ports.desk import DeliveryQuery, DeliveryRecord
from webhooks.deliveries import DeliveryStatus


class DeliveryController(Controller):
    path = "/v1/deliveries"
    tags = ("Deliveries",)
    guards = (requires(Scope.SUBSCRIPTIONS),)

    @get(
        "/",
        opt=describes(
            Operation(
                summary="List deliveries",
                query=DeliveriesQuery,
                answers={200: Says(description="A page of them, newest first.", content=PageOf[DeliveryOut])},
            )
        ),
    )
    async def listing(self, request: Request[Any, Caller, Any], services: Use) -> Response[bytes]:
        query = parse_query(DeliveriesQuery, request.query_params.multi_items())
        status = None if query.status is None else DeliveryStatus(query.status)
        return answer(await page_of(services, request.auth, "deliveries", query, status))

    @get(
        "/{delivery_id:str}",
        opt=describes(
            Operation(
                summary="Read one, with its attempts",
                answers={200: Says(description="The delivery.", content=DeliveryWithAttempts)},
                problems=(NotFound,),
            )
        ),
    )
    async def one(
        self, request: Request[Any, Caller, Any], delivery_id: FromPath[str], services: Use
    ) -> Response[bytes]:
        record = await visible(services, request.auth, delivery_id)
        attempts = [AttemptOut(**attempt_out(attempt)) for attempt in await services.desk.attempts(delivery_id)]
        return answer(DeliveryWithAttempts(**delivery_out(record), attempts=attempts))

    @post(
        "/{delivery_id:str}/retry",
        status_code=HTTPStatus.ACCEPTED,
        opt=describes(
            Operation(
                summary="Try it now",
                description="A pending, dead or cancelled one goes now: past its schedule, Retry-After and the "
                "circuit, not past a pause.",
                answers={202: Says(description="It is due.", content=DeliveryOut)},
                problems=(NotFound, Conflict),
            )
        ),
    )
    async def retry(
        self, request: Request[Any, Caller, Any], delivery_id: FromPath[str], services: Use
    ) -> Response[bytes]:
        await visible(services, request.auth, delivery_id)
        record = _found(await services.desk.retry(delivery_id, now=services.clock()))
        services.wake([record.subscription_id])
        return answer(DeliveryOut(**delivery_out(record)), HTTPStatus.ACCEPTED)

    @post(
        "/{delivery_id:str}/cancel",
        status_code=HTTPStatus.OK,
        opt=describes(
            Operation(
                summary="Never send it",
                answers={200: Says(description="It is cancelled.", content=DeliveryOut)},
                problems=(NotFound, Conflict),
            )
        ),
    )
    async def cancel(
        self, request: Request[Any, Caller, Any], delivery_id: FromPath[str], services: Use
    ) -> Response[bytes]:
        await visible(services, request.auth, delivery_id)
        record = _found(await services.desk.cancel(delivery_id, now=services.clock()))
        services.changed(record.subscription_id)
        return answer(DeliveryOut(**delivery_out(record)))


async def page_of(
    services: Services, caller: Caller, name: str, query: DeadLettersQuery, status: DeliveryStatus | None
) -> PageOf[DeliveryOut]:
    """The page that *query* asks for; *name* is the list's, for its tokens."""
    mark = fingerprint(name, query)
    page = await services.desk.list(
        DeliveryQuery(
            libraries=caller.libraries,
            subscription_id=query.subscription_id,
            event_id=query.event_id,
            status=status,
            library_id=query.library_id,
            type=query.type,
            since=query.since,
            until=query.until,
            resume=read_token(mark, query.page_token, str),
            limit=query.page_size,
        )
    )
    rows = [DeliveryOut(**delivery_out(record)) for record in page.rows]
    return PageOf[DeliveryOut](data=rows, next_page_token=write_token(mark, page.more))


async def visible(services: Services, caller: Caller, delivery_id: str) -> DeliveryRecord:
    """The delivery, if *caller* may see its subscription."""
    record = _found(await services.desk.get(delivery_id) if is_id(delivery_id) else None)
    if not caller.sees(record.libraries):
        raise unknown()
    return record


def unknown() -> NotFound:
    return NotFound("there is no such delivery")


def _found(record: DeliveryRecord | None) -> DeliveryRecord:
    if record is None:
        raise unknown()
    return record
