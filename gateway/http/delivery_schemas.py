"""Deliveries and their attempts as JSON."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field

from gateway.http.answers import Answer, Time
from gateway.http.bodies import Moment
from gateway.http.paging import Paged
from gateway.ports.desk import DeliveryRecord
from webhooks.deliveries import Attempt

STATUSES = Literal["pending", "delivered", "dead", "cancelled"]


class AttemptOut(Answer):
    """One HTTP request as it went. Without a `status_code`, `error` says why there is none."""

    number: Annotated[int, Field(description="From 1, over all schedules of its delivery.")]
    started_at: Time
    duration_ms: float
    connect_ms: float | None
    first_byte_ms: float | None
    status_code: int | None
    error: Annotated[str | None, Field(examples=["timed out after 15 s"])]
    request_headers: Annotated[dict[str, str], Field(description="Values that could be secret are masked.")]
    response_headers: dict[str, str]
    response_body: Annotated[str, Field(description="Its first 4 KiB; what is not UTF-8 is replaced.")]


class DeliveryOut(Answer):
    """One event bound for one subscription."""

    id: str
    event_id: str
    subscription_id: str
    library_id: str
    type: str
    status: STATUSES
    reason: Annotated[
        str | None,
        Field(
            description="When dead or cancelled: `exhausted`, `expired`, `gone`, `forbidden_destination`, "
            "`subscription_deleted`, `cancelled`."
        ),
    ]
    attempt_count: int
    created_at: Time
    due_at: Annotated[Time | None, Field(description="When it is tried next; null once it is settled.")]
    settled_at: Time | None
    replay_id: str | None


class DeliveryWithAttempts(DeliveryOut):
    attempts: Annotated[list[AttemptOut], Field(description="Oldest first.")]


class EventDeliveryOut(Answer):
    """What one subscription got of one event: a delivery, or the reason why there is none."""

    subscription_id: str
    delivery: DeliveryOut | None
    reason: Annotated[
        str | None,
        Field(
            description="Why there is none: `created later` (the subscription, than the event), `filtered: type`, "
            "`filtered: library`, `filtered: filter` (its expression), `not allowed` (outside the libraries that it is "
            "confined to), `not yet`, `no longer kept`, or `filter changed` (the present one would have let it pass)."
        ),
    ]
    by_present_filter: Annotated[
        bool,
        Field(description="Whether the reason goes by the present filter, because it is not known what it was then."),
    ]


class DeadLettersQuery(Paged):
    """`since` (inclusive) and `until` (exclusive) are of the event's acceptance."""

    subscription_id: str | None = None
    event_id: str | None = None
    library_id: str | None = None
    type: Annotated[str | None, Field(description="Exact.")] = None
    since: Moment = None
    until: Moment = None


class DeliveriesQuery(DeadLettersQuery):
    status: STATUSES | None = None


def delivery_out(record: DeliveryRecord) -> dict[str, Any]:
    """The fields of `DeliveryOut`."""
    return {
        "id": record.id,
        "event_id": record.event_id,
        "subscription_id": record.subscription_id,
        "library_id": record.library_id,
        "type": record.type,
        "status": str(record.status),
        "reason": record.reason,
        "attempt_count": record.attempt_count,
        "created_at": record.created_at,
        "due_at": record.due_at,
        "settled_at": record.settled_at,
        "replay_id": record.replay_id,
    }


def attempt_out(attempt: Attempt) -> dict[str, Any]:
    """The fields of `AttemptOut`."""
    return {
        "number": attempt.number,
        "started_at": attempt.started_at,
        "duration_ms": _ms(attempt.duration),
        "connect_ms": None if attempt.connect is None else _ms(attempt.connect),
        "first_byte_ms": None if attempt.first_byte is None else _ms(attempt.first_byte),
        "status_code": attempt.status_code,
        "error": attempt.error,
        "request_headers": dict(attempt.request_headers),
        "response_headers": dict(attempt.response_headers),
        "response_body": attempt.response_body.decode(errors="replace"),
    }


def _ms(span: timedelta) -> float:
    return span / timedelta(milliseconds=1)
