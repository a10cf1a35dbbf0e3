"""Replays: past events sent again to a subscription, how far that is, and an end to it."""

from http import HTTPStatus
from typing import Annotated, Any, Literal, Self

from litestar import Controller, Request, Response, delete, get, post
from litestar.params import FromPath, RawBody
from pydantic import Field, model_validator

from gateway.errors import Conflict, Fault, Forbidden, InvalidInput, NotFound
from gateway.filters import Filter
from gateway.http import subscriptions
from gateway.http.answers import Answer, Time, answer, nothing
from gateway.http.auth import Caller, requires
from gateway.http.bodies import Body, Moment, parse
from gateway.http.confinement import refuse_outside
from gateway.http.dead_letters import Counted
from gateway.http.ids import is_id
from gateway.http.operations import Operation, Says, describes
from gateway.http.services import Services, Use
from gateway.keys import Scope
from gateway.ports.desk import ReplayRecord
from webhooks.deliveries import DeliveryStatus


class ReplayIn(Body):
    """Which events: those of the subscription's own filter as it is now, narrowed by what is given here."""

    since: Annotated[Moment, Field(description="Of the event's acceptance; inclusive.")]
    until: Annotated[Moment, Field(description="Of the event's acceptance; exclusive. Left out: up to now.")] = None
    types: Annotated[list[str] | None, Field(description="Any of these: exact, a branch `document.*`, or `*`.")] = None
    library_ids: Annotated[list[str] | None, Field(description="Any of these.")] = None
    only: Annotated[
        Literal["all", "undelivered"],
        Field(description="`undelivered`: events none of whose deliveries here is pending or delivered."),
    ] = "all"
    dry_run: Annotated[bool, Field(description="Only count them.")] = False
    max_per_second: Annotated[
        float | None, Field(gt=0, le=100_000, description="Of first attempts, beside the subscription's own rate.")
    ] = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        faults = [] if self.since is not None else [Fault("/since", "is required")]
        try:
            self.as_filter()
        except InvalidInput as error:
            faults.extend(error.faults)
        if faults:
            raise InvalidInput(f"{faults[0].pointer} {faults[0].detail}", faults)
        return self

    def as_filter(self) -> Filter:
        return Filter.parse(library_ids=self.library_ids, types=self.types)


class ReplayStarted(Answer):
    id: Annotated[str, Field(description="`GET /v1/replays/{id}` shows how far it is.")]
    matched: int


class ReplayOut(Answer):
    """A replay or a redelivery, and how far it is. A delivery counts for the last of those it was part of."""

    id: str
    kind: str
    subscription_id: str | None
    created_at: Time
    status: Annotated[
        Literal["running", "finished", "stopped"],
        Field(description="`finished`: all that matched were sent, or given up; `stopped`: somebody wanted no more."),
    ]
    finished_at: Annotated[Time | None, Field(description="Since when nothing of it is owed.")]
    matched: Annotated[int, Field(description="Events, when it was asked for.")]
    created: Annotated[int, Field(description="Deliveries made so far.")]
    pending: int
    delivered: int
    dead: int
    cancelled: int


class SubscriptionReplayController(Controller):
    path = "/v1/subscriptions/{subscription_id:str}/replay"
    tags = ("Subscriptions",)
    guards = (requires(Scope.SUBSCRIPTIONS),)

    @post(
        "/",
        status_code=HTTPStatus.ACCEPTED,
        opt=describes(
            Operation(
                summary="Send past events again",
                description="Events in the log that match the subscription's own filter, also from before it was made, "
                "as deliveries of their own: in the order of the log, and after live work. The gateway's own events "
                "only where the subscription's filter names them. They are counted before the answer, which takes "
                "some 2 s per million events in the stretch; a CEL filter takes a minute or two per million of those "
                "that the types and libraries leave. A subscription has at most 100 replays that are not finished; "
                "the oldest goes first.",
                body=ReplayIn,
                body_examples={
                    "a day": {"since": "2025-10-27T00:00:00Z", "until": "2025-10-28T00:00:00Z"},
                    "what was missed": {"since": "2025-10-27T00:00:00Z", "only": "undelivered", "max_per_second": 10},
                },
                answers={
                    202: Says(description="It is under way.", content=ReplayStarted),
                    200: Says(description="With `dry_run`: how many it would be.", content=Counted),
                },
                problems=(NotFound, Forbidden, Conflict),
            )
        ),
    )
    async def replay(
        self, request: Request[Any, Caller, Any], subscription_id: FromPath[str], body: RawBody, services: Use
    ) -> Response[bytes]:
        subscription = await subscriptions.visible(services, request.auth, subscription_id)
        wanted = parse(ReplayIn, body)
        refuse_outside(wanted.library_ids, request.auth)
        prospect = await services.replays.look(
            subscription,
            wanted.as_filter(),
            since=wanted.since,
            until=wanted.until,
            undelivered=wanted.only == "undelivered",
        )
        if wanted.dry_run:
            return answer(Counted(matched=prospect.matched))
        replay_id = await services.replays.start(prospect, max_per_second=wanted.max_per_second)
        if replay_id is None:
            raise subscriptions.unknown()
        return answer(ReplayStarted(id=replay_id, matched=prospect.matched), HTTPStatus.ACCEPTED)


class ReplayController(Controller):
    path = "/v1/replays"
    tags = ("Replays",)
    guards = (requires(Scope.SUBSCRIPTIONS),)

    @get(
        "/{replay_id:str}",
        opt=describes(
            Operation(
                summary="See how far it is",
                answers={200: Says(description="The replay or redelivery.", content=ReplayOut)},
                problems=(NotFound,),
            )
        ),
    )
    async def progress(
        self, request: Request[Any, Caller, Any], replay_id: FromPath[str], services: Use
    ) -> Response[bytes]:
        record = await _visible(services, request.auth, replay_id)
        return answer(
            ReplayOut(
                id=record.id,
                kind=record.kind,
                subscription_id=record.subscription_id,
                created_at=record.created_at,
                status=record.status,
                finished_at=record.finished_at,
                matched=record.matched,
                created=record.created,
                pending=record.by_status.get(DeliveryStatus.PENDING, 0),
                delivered=record.by_status.get(DeliveryStatus.DELIVERED, 0),
                dead=record.by_status.get(DeliveryStatus.DEAD, 0),
                cancelled=record.by_status.get(DeliveryStatus.CANCELLED, 0),
            )
        )

    @delete(
        "/{replay_id:str}",
        opt=describes(
            Operation(
                summary="Stop it",
                description="No more of it is made, and what is still pending is cancelled. Again is no fault.",
                answers={204: Says(description="It is stopped.")},
                problems=(NotFound,),
            )
        ),
    )
    async def stop(self, request: Request[Any, Caller, Any], replay_id: FromPath[str], services: Use) -> Response[None]:
        await _visible(services, request.auth, replay_id)
        for subscription_id in await services.desk.stop_replay(replay_id) or ():
            services.changed(subscription_id)
        return nothing()


async def _visible(services: Services, caller: Caller, replay_id: str) -> ReplayRecord:
    record = await services.desk.replay(replay_id) if is_id(replay_id) else None
    if record is None or not caller.sees(record.libraries):
        raise NotFound("there is no such replay")
    return record
