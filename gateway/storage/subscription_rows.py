"""Rows of the subscriptions table as values and back: a subscription for its owner, an endpoint for `webhooks`.

Secrets and header values are sealed and opened here and nowhere else.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Row

from gateway.events import Cursor
from gateway.filters import Filter
from gateway.storage.sealing import Seal
from gateway.subscriptions import Interest, Subscription, idle_by
from gateway.times import from_micros, to_micros
from webhooks.endpoints import Endpoint, Health, Ordering, Payload, Status
from webhooks.signing import Secret


def subscription_of(row: Row[Any], seal: Seal) -> Subscription:
    return Subscription(
        id=row.id,
        url=row.url,
        filter=Filter(library_ids=row.library_ids, types=row.types, expression=row.filter),
        libraries=row.libraries,
        description=row.description,
        headers=_headers_of(row.headers, seal),
        signature=row.signature,
        ordering=Ordering(row.ordering),
        payload=Payload(row.payload),
        max_in_flight=row.max_in_flight,
        max_per_second=row.max_per_second,
        timeout_seconds=row.timeout_seconds,
        retry_schedule=_schedule(row.retry_schedule),
        metadata=row.metadata,
        secrets=_secrets_of(row.secrets, seal),
        status=Status(row.status),
        disabled_reason=row.disabled_reason,
        created_at=row.created_at,
        created_by=row.created_by,
        created_cursor=Cursor(row.created_cursor),
        idle=row.idle,
        idle_since=row.idle_since,
    )


def row_of_subscription(subscription: Subscription, seal: Seal) -> dict[str, Any]:
    """All columns but `former` and `filter_since`, which only the store knows of."""
    return {
        "id": subscription.id,
        "url": subscription.url,
        "library_ids": subscription.filter.library_ids,
        "types": subscription.filter.types,
        "filter": subscription.filter.expression,
        "libraries": subscription.libraries,
        "description": subscription.description,
        "headers": seal.seal(msgspec.json.encode(dict(subscription.headers))),
        "signature": str(subscription.signature),
        "ordering": subscription.ordering.value,
        "payload": subscription.payload.value,
        "max_in_flight": subscription.max_in_flight,
        "max_per_second": subscription.max_per_second,
        "timeout_seconds": subscription.timeout_seconds,
        "retry_schedule": subscription.retry_schedule,
        "metadata": dict(subscription.metadata),
        "secrets": seal.seal(msgspec.json.encode(_secrets_json(subscription.secrets))),
        "status": subscription.status.value,
        "disabled_reason": subscription.disabled_reason,
        "created_at": subscription.created_at,
        "created_by": subscription.created_by,
        "created_cursor": subscription.created_cursor,
        "idle": subscription.idle,
        "idle_since": subscription.idle_since,
    }


def endpoint_of(row: Row[Any], seal: Seal, *, retry_schedule: tuple[float, ...], now: datetime) -> Endpoint:
    """*retry_schedule* is the gateway's own, for those that set none. Idle time that is running counts up to *now*."""
    return Endpoint(
        id=row.id,
        url=row.url,
        secrets=_secrets_of(row.secrets, seal),
        headers=_headers_of(row.headers, seal),
        ordering=Ordering(row.ordering),
        payload=Payload(row.payload),
        max_in_flight=row.max_in_flight,
        max_per_second=row.max_per_second,
        timeout_seconds=row.timeout_seconds,
        retry_schedule=retry_schedule if row.retry_schedule is None else tuple(row.retry_schedule),
        status=Status(row.status),
        idle=idle_by(row.idle, row.idle_since, now),
    )


def health_of(row: Row[Any]) -> Health:
    """Of a row joined with its lane; one that was never sent to has none yet and is well."""
    if row.consecutive_failures is None:
        return Health()
    return Health(
        failing_since=row.failing_since,
        failing_told=row.failing_told,
        consecutive_failures=row.consecutive_failures,
        unreachable=row.unreachable,
        circuit_trips=row.circuit_trips,
        circuit_open_until=row.circuit_open_until,
        held_until=row.held_until,
    )


def row_of_health(endpoint_id: str, health: Health) -> dict[str, Any]:
    return {
        "subscription_id": endpoint_id,
        "failing_since": health.failing_since,
        "failing_told": health.failing_told,
        "consecutive_failures": health.consecutive_failures,
        "unreachable": health.unreachable,
        "circuit_trips": health.circuit_trips,
        "circuit_open_until": health.circuit_open_until,
        "held_until": health.held_until,
    }


INTEREST_COLUMNS = ("id", "library_ids", "types", "filter", "libraries", "created_cursor", "former", "filter_since")


def interest_of(row: Row[Any], at: Cursor) -> Interest:
    """The interest in force for events after *at*: the first former one that ended later, else the present one."""
    former = next((former for former in row.former if former["until"] > at), None)
    return _interest(row, former)


def interest_for(row: Row[Any], cursor: Cursor) -> tuple[Interest, bool]:
    """The interest in force for the event at *cursor*, and True; where nobody knows, the present one, and False."""
    if row.filter_since is not None and cursor >= row.filter_since:
        return _interest(row, None), True
    for former in row.former:
        if former.get("since") is not None and former["since"] <= cursor < former["until"]:
            return _interest(row, former), True
    return _interest(row, None), False


def _interest(row: Row[Any], former: Mapping[str, Any] | None) -> Interest:
    filter_ = Filter(library_ids=row.library_ids, types=row.types, expression=row.filter)
    if former is not None:
        filter_ = Filter(
            library_ids=_names(former["library_ids"]), types=_names(former["types"]), expression=former["filter"]
        )
    return Interest(subscription_id=row.id, filter=filter_, libraries=row.libraries, since=Cursor(row.created_cursor))


def former_json(filter_: Filter, *, since: Cursor | None, until: Cursor) -> dict[str, Any]:
    """*filter_* as one that was in force from the event at *since* (None: nobody knows) on, up to *until*."""
    return {
        "since": since,
        "until": until,
        "library_ids": None if filter_.library_ids is None else sorted(filter_.library_ids),
        "types": None if filter_.types is None else sorted(filter_.types),
        "filter": filter_.expression,
    }


def _names(value: Iterable[str] | None) -> frozenset[str] | None:
    return None if value is None else frozenset(value)


def _schedule(value: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if value is None else tuple(value)


def _secrets_json(secrets: Iterable[Secret]) -> list[dict[str, Any]]:
    return [
        {"secret": secret.text, "expires_at": None if secret.expires_at is None else to_micros(secret.expires_at)}
        for secret in secrets
    ]


def _headers_of(value: bytes, seal: Seal) -> dict[str, str]:
    return msgspec.json.decode(seal.open(value), type=dict[str, str])


def _secrets_of(value: bytes, seal: Seal) -> tuple[Secret, ...]:
    return tuple(
        Secret.parse(kept["secret"], expires_at=None if kept["expires_at"] is None else from_micros(kept["expires_at"]))
        for kept in msgspec.json.decode(seal.open(value))
    )
