"""`/v1/stats/deliveries` and `/v1/subscriptions/{id}/stats`: how deliveries went, in numbers."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from litestar import Controller, Request, Response, get
from litestar.params import FromPath
from pydantic import Field

from gateway.errors import InvalidInput, NotFound
from gateway.http.answers import Answer, Time, answer
from gateway.http.auth import Caller, requires
from gateway.http.bodies import Moment, parse_query
from gateway.http.operations import Operation, Says, describes
from gateway.http.paging import Paged, PageOf, fingerprint, read_token, write_token
from gateway.http.services import Use
from gateway.http.subscriptions import visible
from gateway.keys import Scope
from gateway.rollups.histogram import Histogram, percentile
from gateway.rollups.rollups import (
    MOST_NAMES,
    MOST_NAMES_OF_ALL,
    Figures,
    Grouping,
    Interval,
    Place,
    Rollup,
    RollupQuery,
)
from gateway.rollups.rollups import Standing as Stands
from gateway.times import from_micros, to_micros
from webhooks import circuit

RECENT = timedelta(hours=24)


class Percentiles(Answer):
    """Milliseconds, each within 5 %; null where there is nothing to tell."""

    p50: float | None
    p95: float | None
    p99: float | None


AttemptDuration = Annotated[Percentiles, Field(description="Of one HTTP request, from its beginning to its end.")]
PublishToDelivered = Annotated[
    Percentiles,
    Field(description="From an event's acceptance to its delivery, retries and all; replays are left out."),
]


class DeliveryStats(Answer):
    """What became of attempts and deliveries in one interval, for one group."""

    start: Annotated[Time, Field(description="When the interval began.")]
    subscription_id: Annotated[str | None, Field(description="When grouped by it.")]
    type: Annotated[
        str | None,
        Field(
            description="When grouped by it; null: all types beyond those counted by name, of which there are "
            f"{MOST_NAMES} in an interval of one subscription and {MOST_NAMES_OF_ALL:,} of all together."
        ),
    ]
    library_id: Annotated[str | None, Field(description="When grouped by it; null: as with `type`.")]
    attempts: int
    failed_attempts: Annotated[int, Field(description="Those that did not deliver.")]
    delivered: Annotated[int, Field(description="Deliveries that became so.")]
    dead: Annotated[int, Field(description="Deliveries that were given up.")]
    attempt_duration_ms: AttemptDuration
    publish_to_delivered_ms: PublishToDelivered


class DeliveryStatsQuery(Paged):
    interval: Literal["minute", "hour", "day"] = "hour"
    group_by: Annotated[Literal["subscription", "type", "library"] | None, Field(description="None: all together.")] = (
        None
    )
    since: Annotated[
        Moment, Field(description="The first interval is the one that this lies in; 24 h ago if left out.")
    ] = None
    until: Annotated[Moment, Field(description="Only intervals that began before.")] = None
    subscription_id: str | None = None


class Counts(Answer):
    """Deliveries that are kept, by status."""

    pending: int
    delivered: int
    dead: int
    cancelled: int


class CircuitOut(Answer):
    state: Annotated[
        Literal["closed", "open", "probing"],
        Field(description="`open`: nothing is sent until then; `probing`: one attempt at a time."),
    ]
    until: Annotated[Time | None, Field(description="When it is open: until when.")]


class SubscriptionStats(Answer):
    """How a subscription stands."""

    subscription_id: str
    counts: Counts
    success_rate: Annotated[
        float | None, Field(description="`delivered` of `delivered` and `dead`, 0 to 1; null when it is neither yet.")
    ]
    backlog: Annotated[int, Field(description="Deliveries that wait, those that wait for a retry among them.")]
    oldest_due_at: Annotated[Time | None, Field(description="When the first of them was or is due.")]
    consecutive_failures: Annotated[int, Field(description="Attempts since the last that delivered.")]
    circuit: CircuitOut
    held_until: Annotated[Time | None, Field(description="Until when its receiver asked for a pause.")]
    since: Annotated[Time, Field(description="What follows is from here on: of the last 24 h, by whole hours.")]
    attempts: int
    failed_attempts: int
    attempt_duration_ms: AttemptDuration
    publish_to_delivered_ms: PublishToDelivered


class FigureController(Controller):
    path = "/v1"
    guards = (requires(Scope.SUBSCRIPTIONS),)

    @get(
        "/stats/deliveries",
        tags=("Deliveries",),
        opt=describes(
            Operation(
                summary="Count deliveries over time",
                description="One row an interval (in UTC) and group in which something happened, newest first; what "
                "counts is when an attempt ended. Minutes are kept for 2 days, hours for 32, days for 400.",
                query=DeliveryStatsQuery,
                answers={200: Says(description="A page of them, newest first.", content=PageOf[DeliveryStats])},
            )
        ),
    )
    async def over_time(self, request: Request[Any, Caller, Any], services: Use) -> Response[bytes]:
        query = parse_query(DeliveryStatsQuery, request.query_params.multi_items())
        mark = fingerprint("stats-deliveries", query)
        grouping = Grouping.NOTHING if query.group_by is None else Grouping(query.group_by)
        page = await services.rollups.list(
            RollupQuery(
                libraries=request.auth.libraries,
                interval=Interval(query.interval),
                grouping=grouping,
                since=_since(query, services.clock()),
                until=query.until,
                subscription_id=query.subscription_id,
                resume=_read_place(read_token(mark, query.page_token, str)),
                limit=query.page_size,
            )
        )
        rows = [_stats(rollup, grouping) for rollup in page.rows]
        return answer(PageOf[DeliveryStats](data=rows, next_page_token=write_token(mark, _write_place(page.more))))

    @get(
        "/subscriptions/{subscription_id:str}/stats",
        tags=("Subscriptions",),
        opt=describes(
            Operation(
                summary="See how it stands",
                answers={200: Says(description="Its deliveries and its receiver.", content=SubscriptionStats)},
                problems=(NotFound,),
            )
        ),
    )
    async def of_subscription(
        self, request: Request[Any, Caller, Any], subscription_id: FromPath[str], services: Use
    ) -> Response[bytes]:
        await visible(services, request.auth, subscription_id)
        now = services.clock()
        since = Interval.HOUR.start(now - RECENT)
        stands = await services.rollups.standing(subscription_id, since=since)
        return answer(_standing(subscription_id, stands, since, now))


def _since(query: DeliveryStatsQuery, now: datetime) -> datetime:
    if query.since is not None:
        since: datetime = query.since
        return since
    end = now if query.until is None else min(now, query.until)
    return end - RECENT


def _stats(rollup: Rollup, grouping: Grouping) -> DeliveryStats:
    figures = rollup.figures
    return DeliveryStats(
        start=rollup.start,
        subscription_id=rollup.group if grouping is Grouping.SUBSCRIPTION else None,
        type=rollup.group if grouping is Grouping.TYPE else None,
        library_id=rollup.group if grouping is Grouping.LIBRARY else None,
        attempts=figures.attempts,
        failed_attempts=figures.failed_attempts,
        delivered=figures.delivered,
        dead=figures.dead,
        **_percentiles(figures),
    )


def _standing(subscription_id: str, stands: Stands, since: datetime, now: datetime) -> SubscriptionStats:
    health, counts = stands.health, stands.counts
    state = circuit.state(health, now)
    ended = counts["delivered"] + counts["dead"]
    return SubscriptionStats(
        subscription_id=subscription_id,
        counts=Counts(**counts),
        success_rate=round(counts["delivered"] / ended, 4) if ended else None,
        backlog=counts["pending"],
        oldest_due_at=stands.oldest_due_at,
        consecutive_failures=health.consecutive_failures,
        circuit=CircuitOut(
            state=state.value, until=health.circuit_open_until if state is circuit.Circuit.OPEN else None
        ),
        held_until=health.held_until if health.held_until is not None and health.held_until > now else None,
        since=since,
        attempts=stands.recent.attempts,
        failed_attempts=stands.recent.failed_attempts,
        **_percentiles(stands.recent),
    )


def _percentiles(figures: Figures) -> dict[str, Percentiles]:
    return {
        "attempt_duration_ms": _three(figures.durations),
        "publish_to_delivered_ms": _three(figures.latencies),
    }


def _three(histogram: Histogram) -> Percentiles:
    return Percentiles(p50=_ms(histogram, 50), p95=_ms(histogram, 95), p99=_ms(histogram, 99))


def _ms(histogram: Histogram, percent: float) -> float | None:
    span = percentile(histogram, percent)
    return None if span is None else round(span / timedelta(milliseconds=1), 3)


def _write_place(place: Place | None) -> str | None:
    return None if place is None else f"{to_micros(place.start)}:{place.group}"


def _read_place(text: str | None) -> Place | None:
    if text is None:
        return None
    micros, _, group = text.partition(":")
    try:
        return Place(start=from_micros(int(micros)), group=group)
    except (ValueError, OverflowError):
        raise InvalidInput.at("/page_token", "is not a page token") from None
