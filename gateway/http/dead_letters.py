"""`/v1/dead-letters`: what was given up and why; try it again, or forget it."""

from http import HTTPStatus
from typing import Annotated, Any, Self

from litestar import Controller, Request, Response, delete, get, post
from litestar.params import FromPath, RawBody
from pydantic import Field, model_validator

from gateway.errors import Fault, InvalidInput, NotFound
from gateway.filters import Filter
from gateway.http import deliveries, subscriptions
from gateway.http.answers import Answer, answer, nothing
from gateway.http.auth import Caller, requires
from gateway.http.bodies import Body, Id, Moment, parse, parse_query
from gateway.http.delivery_schemas import DeadLettersQuery, DeliveryOut
from gateway.http.operations import Operation, Says, describes
from gateway.http.paging import PageOf
from gateway.http.services import Use
from gateway.keys import Scope
from gateway.ports.desk import RedeliverQuery
from webhooks.deliveries import DeliveryStatus


class Redelivery(Body):
    """Which: by `ids`, or all of `subscription_id` that match."""

    ids: Annotated[list[Id] | None, Field(description="Dead letters by id; those that are none are passed over.")] = (
        None
    )
    subscription_id: str | None = None
    since: Annotated[Moment, Field(description="Of the event's acceptance; inclusive.")] = None
    until: Annotated[Moment, Field(description="Of the event's acceptance; exclusive.")] = None
    types: list[str] | None = None
    dry_run: Annotated[bool, Field(description="Only count them.")] = False

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if faults := list(self._faults()):
            raise InvalidInput(f"{faults[0].pointer} {faults[0].detail}", faults)
        return self

    def _faults(self) -> list[Fault]:
        if (self.ids is None) == (self.subscription_id is None):
            return [Fault("", "has to have either ids or subscription_id")]
        if self.ids is not None:
            others = {"since": self.since, "until": self.until, "types": self.types}
            given = [name for name, value in others.items() if value is not None]
            faults = [Fault(f"/{name}", "goes with subscription_id only") for name in given]
            if not 1 <= len(self.ids) <= 1000:
                faults.append(Fault("/ids", "has to name 1 to 1,000 dead letters"))
            return faults
        try:
            Filter.parse(types=self.types)
        except InvalidInput as error:
            return list(error.faults)
        return []


class Counted(Answer):
    matched: int


class Redelivered(Answer):
    matched: int
    replay_id: Annotated[str, Field(description="`GET /v1/replays/{id}` shows how far it is.")]


class DeadLetterController(Controller):
    path = "/v1/dead-letters"
    tags = ("Dead letters",)
    guards = (requires(Scope.SUBSCRIPTIONS),)

    @get(
        "/",
        opt=describes(
            Operation(
                summary="List dead letters",
                query=DeadLettersQuery,
                answers={200: Says(description="A page of them, newest first.", content=PageOf[DeliveryOut])},
            )
        ),
    )
    async def listing(self, request: Request[Any, Caller, Any], services: Use) -> Response[bytes]:
        query = parse_query(DeadLettersQuery, request.query_params.multi_items())
        return answer(await deliveries.page_of(services, request.auth, "dead-letters", query, DeliveryStatus.DEAD))

    @post(
        "/redeliver",
        status_code=HTTPStatus.ACCEPTED,
        opt=describes(
            Operation(
                summary="Try them again",
                description="Each gets a fresh schedule; its attempts count on. Those whose event has left the log "
                "are passed over.",
                body=Redelivery,
                body_examples={
                    "some": {"ids": ["dlv_01jb3h5qk8e9vbr1q4z8e9vbr1"]},
                    "all of one": {"subscription_id": "sub_01jb3h5qk8e9vbr1q4z8e9vbr1", "dry_run": True},
                },
                answers={
                    202: Says(description="They are due.", content=Redelivered),
                    200: Says(description="With `dry_run`: how many it would be.", content=Counted),
                },
                problems=(NotFound,),
            )
        ),
    )
    async def redeliver(self, request: Request[Any, Caller, Any], body: RawBody, services: Use) -> Response[bytes]:
        wanted = parse(Redelivery, body)
        if wanted.subscription_id is not None:
            await subscriptions.visible(services, request.auth, wanted.subscription_id)
        query = RedeliverQuery(
            libraries=request.auth.libraries,
            ids=None if wanted.ids is None else tuple(dict.fromkeys(wanted.ids)),
            subscription_id=wanted.subscription_id,
            since=wanted.since,
            until=wanted.until,
            types=None if wanted.types is None else frozenset(wanted.types),
        )
        if wanted.dry_run:
            return answer(Counted(matched=await services.desk.count_redeliverable(query)))
        replay = await services.desk.redeliver(query, now=services.clock())
        if wanted.subscription_id is not None:
            services.wake([wanted.subscription_id])
        return answer(Redelivered(matched=replay.matched, replay_id=replay.id), HTTPStatus.ACCEPTED)

    @delete(
        "/{delivery_id:str}",
        opt=describes(
            Operation(
                summary="Forget a dead letter",
                answers={204: Says(description="It is no more.")},
                problems=(NotFound,),
            )
        ),
    )
    async def forget(
        self, request: Request[Any, Caller, Any], delivery_id: FromPath[str], services: Use
    ) -> Response[None]:
        await deliveries.visible(services, request.auth, delivery_id)
        if not await services.desk.forget(delivery_id):
            raise NotFound("there is no such dead letter")
        return nothing()
