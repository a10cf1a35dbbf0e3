"""`/v1/subscriptions`: make, list, read, change and delete; pause and resume."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from litestar import Controller, Request, Response, delete, get, patch, post
from litestar.params import FromPath, RawBody

from gateway.errors import Conflict, Fault, Forbidden, InvalidInput, NotFound
from gateway.filters import Filter
from gateway.http.answers import answer, nothing
from gateway.http.auth import Caller, requires
from gateway.http.bodies import decode, parse, parse_query, validate
from gateway.http.confinement import refuse_outside
from gateway.http.ids import is_id, new_id
from gateway.http.merging import merge
from gateway.http.operations import Operation, Says, describes
from gateway.http.paging import Paged, PageOf, fingerprint, read_token, write_token
from gateway.http.services import Services, Use
from gateway.http.subscription_schemas import (
    EXAMPLE,
    SubscriptionFields,
    SubscriptionIn,
    SubscriptionMade,
    SubscriptionOut,
    check_url,
    fields,
    out,
    with_known_header_names,
)
from gateway.keys import Scope
from gateway.subscriptions import Subscription
from webhooks.endpoints import Status

AT_MOST_CONFINED = 100
"""So many subscriptions a confined key may have."""

UPDATED = "gateway.subscription.updated"
RESUMED = "gateway.subscription.resumed"

ONE = {200: Says(description="The subscription.", content=SubscriptionOut)}


class SubscriptionController(Controller):
    path = "/v1/subscriptions"
    tags = ("Subscriptions",)
    guards = (requires(Scope.SUBSCRIPTIONS),)

    @post(
        "/",
        opt=describes(
            Operation(
                summary="Subscribe",
                description="It gets what is accepted from now on. A confined key has at most 100.",
                body=SubscriptionIn,
                body_examples={"documents": EXAMPLE},
                answers={201: Says(description="It, and this once its secret.", content=SubscriptionMade)},
                problems=(Forbidden, Conflict),
            )
        ),
    )
    async def create(self, request: Request[Any, Caller, Any], body: RawBody, services: Use) -> Response[bytes]:
        wanted, caller = parse(SubscriptionIn, body), request.auth
        refuse_outside(wanted.library_ids, caller)
        secret = wanted.first_secret()
        blank = Subscription(
            id=new_id("sub"),
            url="",
            filter=Filter(),
            libraries=caller.libraries,
            signature=wanted.signature,
            secrets=(secret,),
            created_at=services.clock(),
            created_by=caller.key_id,
        )
        stored = await services.subscriptions.create(
            _apply(wanted, blank, services), at_most=None if caller.libraries is None else AT_MOST_CONFINED
        )
        if stored is None:
            raise Conflict(f"this key has {AT_MOST_CONFINED} subscriptions, which is as many as it may have")
        made = SubscriptionMade(**out(stored), secret=secret.text if secret.public_key is None else None)
        return answer(made, HTTPStatus.CREATED)

    @get(
        "/",
        opt=describes(
            Operation(
                summary="List subscriptions",
                query=Paged,
                answers={200: Says(description="A page of them, newest first.", content=PageOf[SubscriptionOut])},
            )
        ),
    )
    async def listing(self, request: Request[Any, Caller, Any], services: Use) -> Response[bytes]:
        query = parse_query(Paged, request.query_params.multi_items())
        mark = fingerprint("subscriptions", query)
        page = await services.subscriptions.list(
            libraries=request.auth.libraries,
            limit=query.page_size,
            before=read_token(mark, query.page_token, str),
        )
        rows = [SubscriptionOut(**out(row)) for row in page.rows]
        return answer(PageOf[SubscriptionOut](data=rows, next_page_token=write_token(mark, page.more)))

    @get("/{subscription_id:str}", opt=describes(Operation(summary="Read one", answers=ONE, problems=(NotFound,))))
    async def one(
        self, request: Request[Any, Caller, Any], subscription_id: FromPath[str], services: Use
    ) -> Response[bytes]:
        return _answer(await visible(services, request.auth, subscription_id))

    @patch(
        "/{subscription_id:str}",
        opt=describes(
            Operation(
                summary="Change some of it",
                description="JSON Merge Patch (RFC 7396): what is left out stays, null goes back to the default; of "
                "`headers` and `metadata` null removes one. Signed another way it gets a new secret.",
                body=SubscriptionFields,
                body_partial=True,
                body_examples={"other types": {"types": ["document.added"]}, "no filter": {"filter": None}},
                answers=ONE,
                problems=(NotFound, Forbidden),
            )
        ),
    )
    async def update(
        self, request: Request[Any, Caller, Any], subscription_id: FromPath[str], body: RawBody, services: Use
    ) -> Response[bytes]:
        caller = request.auth
        await visible(services, caller, subscription_id)
        wanted = decode(body)
        if not isinstance(wanted, dict):
            raise InvalidInput.at("", "has to be a JSON object")

        def changed(current: Subscription) -> Subscription:
            document = merge(fields(current), with_known_header_names(wanted, current))
            parsed = validate(SubscriptionFields, document)
            if "library_ids" in wanted:
                refuse_outside(parsed.library_ids, caller)
                _stay_inside(parsed, current)
            return _apply(parsed, current, services)

        return _answer(await change(services, subscription_id, changed, UPDATED))

    @delete(
        "/{subscription_id:str}",
        opt=describes(
            Operation(
                summary="Unsubscribe",
                description="Nothing new is sent to it. What it was still owed is soon `cancelled`.",
                answers={204: Says(description="It is no more.")},
                problems=(NotFound,),
            )
        ),
    )
    async def remove(
        self, request: Request[Any, Caller, Any], subscription_id: FromPath[str], services: Use
    ) -> Response[None]:
        await visible(services, request.auth, subscription_id)
        if not await services.subscriptions.delete(subscription_id):
            raise unknown()
        services.changed(subscription_id)
        return nothing()

    @post(
        "/{subscription_id:str}/pause",
        status_code=HTTPStatus.OK,
        opt=describes(
            Operation(
                summary="Pause",
                description="It keeps collecting, and nothing is sent to it until it is resumed.",
                answers=ONE,
                problems=(NotFound,),
            )
        ),
    )
    async def pause(
        self, request: Request[Any, Caller, Any], subscription_id: FromPath[str], services: Use
    ) -> Response[bytes]:
        await visible(services, request.auth, subscription_id)
        now = services.clock()
        return _answer(await change(services, subscription_id, lambda current: paused(current, now), UPDATED))

    @post(
        "/{subscription_id:str}/resume",
        status_code=HTTPStatus.OK,
        opt=describes(
            Operation(
                summary="Resume",
                description="What it has collected is sent in order, at its own rate.",
                answers=ONE,
                problems=(NotFound,),
            )
        ),
    )
    async def resume(
        self, request: Request[Any, Caller, Any], subscription_id: FromPath[str], services: Use
    ) -> Response[bytes]:
        await visible(services, request.auth, subscription_id)
        now = services.clock()
        subscription = await change(services, subscription_id, lambda current: resumed(current, now), RESUMED)
        services.wake([subscription_id])
        return _answer(subscription)


async def visible(services: Services, caller: Caller, subscription_id: str) -> Subscription:
    """The subscription, if *caller* may see it: unconfined, or with all of the libraries it was made for."""
    subscription = await services.subscriptions.get(subscription_id) if is_id(subscription_id) else None
    if subscription is None or not caller.sees(subscription.libraries):
        raise unknown()
    return subscription


async def change(
    services: Services, subscription_id: str, make: Callable[[Subscription], Subscription], notice: str
) -> Subscription:
    """Replace it by what *make* makes of it, and tell its lane."""
    subscription = await services.subscriptions.change(subscription_id, make, notice)
    if subscription is None:
        raise unknown()
    services.changed(subscription_id)
    return subscription


def unknown() -> NotFound:
    return NotFound("there is no such subscription")


def paused(subscription: Subscription, now: datetime) -> Subscription:
    """Held back by a person from *now* on; a disabled one has been idle for longer."""
    if subscription.status is Status.PAUSED:
        return subscription
    return replace(subscription, status=Status.PAUSED, disabled_reason=None, idle_since=subscription.idle_since or now)


def resumed(subscription: Subscription, now: datetime) -> Subscription:
    """Active again; no delivery's age counts the time between."""
    if subscription.status is Status.ACTIVE:
        return subscription
    idle = subscription.idle + (now - subscription.idle_since if subscription.idle_since else timedelta(0))
    return replace(subscription, status=Status.ACTIVE, disabled_reason=None, idle=idle, idle_since=None)


def _apply(wanted: SubscriptionFields, to: Subscription, services: Services) -> Subscription:
    """*to* with the fields wanted. A URL is checked when it is given, and again whenever it is connected to."""
    url = to.url if wanted.url == to.url else check_url(wanted.url, services.check_url)
    return replace(wanted.apply(to, default_timeout_seconds=services.default_timeout_seconds), url=url)


def _stay_inside(wanted: SubscriptionFields, current: Subscription) -> None:
    """Whoever changes it, it stays confined to the libraries of the key that made it."""
    outside = wanted.as_filter().outside(current.libraries)
    if faults := [
        Fault(f"/library_ids/{index}", "is not among the libraries that this subscription is confined to")
        for index, name in enumerate(wanted.library_ids or ())
        if name in outside
    ]:
        raise InvalidInput(f"{faults[0].pointer} {faults[0].detail}", faults)


def _answer(subscription: Subscription) -> Response[bytes]:
    return answer(SubscriptionOut(**out(subscription)))
