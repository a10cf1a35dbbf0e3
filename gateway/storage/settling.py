"""What attempts came to, stored: a batch of any size is a handful of statements, in one transaction.

read the deliveries ─▶ update ─▶ insert attempts ─▶ tally ─▶ replace lanes ─▶ (disable) ─▶ (notices)
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, bindparam, select, update

from gateway.events import GATEWAY_PREFIX, Draft
from gateway.storage import notices
from gateway.storage.attempt_rows import store_attempts
from gateway.storage.connection import Connection
from gateway.storage.database import Transaction
from gateway.storage.dialects import upsert
from gateway.storage.subscription_rows import row_of_health, subscription_of
from gateway.storage.tables import PENDING, deliveries, lanes, subscriptions
from gateway.storage.tallies import tally
from gateway.subscriptions import Subscription, disabled, idle_by
from webhooks.deliveries import DeliveryStatus, Settlement
from webhooks.verdicts import Dead, Delivered, Retry

_IDS_AT_ONCE = 500  # parameters in one statement

_OWNERS = (
    select(subscriptions.c.id, subscriptions.c.libraries, subscriptions.c.idle, subscriptions.c.idle_since)
    .where(subscriptions.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(subscriptions.c.id)
    .with_for_update()
)
_DELIVERIES = (
    select(*(deliveries.c[name] for name in ("id", "status", "attempt_count", "first_attempt_at", "idle_before")))
    .where(deliveries.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(deliveries.c.id)
    .with_for_update()
)
_UPDATE_PENDING = (
    update(deliveries)
    .where(deliveries.c.id == bindparam("delivery_id"), PENDING)
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in ("status", "reason", "due_at", "settled_at", "attempt_count", "first_attempt_at", "idle_before")
        }
    )
    .values(forced=False)
)
_COUNT_ATTEMPT = (
    update(deliveries)
    .where(deliveries.c.id == bindparam("delivery_id"))
    .values(attempt_count=bindparam("new_attempt_count"))
)
_DISABLE = (
    update(subscriptions)
    .where(subscriptions.c.id == bindparam("subscription_id"))
    .values({name: bindparam(f"new_{name}") for name in ("status", "disabled_reason", "idle_since")})
)


@dataclass(frozen=True, slots=True)
class _Owner:
    """An endpoint that is there still."""

    libraries: frozenset[str] | None
    idle: timedelta
    """By the time of settling."""


async def settle(transaction: Transaction, settlements: Sequence[Settlement], *, now: datetime) -> None:
    """See `webhooks.ports.DeliveryStore.settle`."""
    connection = transaction.connection
    owners = await _owners(connection, {each.delivery.endpoint_id for each in settlements}, now)
    rows = await _rows(connection, {each.delivery.id for each in settlements})
    known = [(each, rows[each.delivery.id]) for each in settlements if each.delivery.id in rows]
    pending = [(each, row) for each, row in known if row.status == DeliveryStatus.PENDING]
    if pending:
        # By subscription, as all others take the rows of `delivery_counts`.
        in_order = sorted(pending, key=lambda one: one[0].delivery.endpoint_id)
        values = [_settled(each, row, owners.get(each.delivery.endpoint_id)) for each, row in in_order]
        await connection.execute(_UPDATE_PENDING, values)
    if late := [_counted(each, row) for each, row in known if row.status != DeliveryStatus.PENDING and each.attempt]:
        await connection.execute(_COUNT_ATTEMPT, late)
    await store_attempts(
        connection, [(each.delivery.id, each.attempt, row.attempt_count) for each, row in known if each.attempt]
    )
    await tally(connection, known)
    living = [each for each in settlements if each.delivery.endpoint_id in owners]
    if health := {each.delivery.endpoint_id: each.health for each in living}:
        await connection.execute(
            upsert(connection, lanes), [row_of_health(id_, value) for id_, value in health.items()]
        )
    drafts = [
        *await _troubles(transaction, living, now),
        *(
            draft
            for each, row in pending
            if (draft := _death(each, row, owners.get(each.delivery.endpoint_id))) is not None
        ),
    ]
    if drafts:
        await notices.tell(transaction, *drafts, now=now)


async def _owners(connection: Connection, ids: Collection[str], now: datetime) -> dict[str, _Owner]:
    """Held until the transaction ends, as all others hold them: before their lanes and the log, and in order."""
    found: dict[str, _Owner] = {}
    for some in _portions(ids):
        for row in await connection.execute(_OWNERS, {"ids": some}):
            found[row.id] = _Owner(row.libraries, idle_by(row.idle, row.idle_since, now))
    return found


async def _rows(connection: Connection, ids: Collection[str]) -> dict[str, Row[Any]]:
    """The deliveries as they are now, held until the transaction ends."""
    found: dict[str, Row[Any]] = {}
    for some in _portions(ids):
        for row in await connection.execute(_DELIVERIES, {"ids": some}):
            found[row.id] = row
    return found


def _portions(ids: Collection[str]) -> Iterator[list[str]]:
    everything = sorted(ids)
    for start in range(0, len(everything), _IDS_AT_ONCE):
        yield everything[start : start + _IDS_AT_ONCE]


def _attempt_count(settlement: Settlement, row: Row[Any]) -> int:
    count: int = row.attempt_count
    return count if settlement.attempt is None else max(count, settlement.attempt.number)


def _settled(settlement: Settlement, row: Row[Any], owner: _Owner | None) -> dict[str, Any]:
    """The delivery's new values, under the names of `_UPDATE_PENDING`."""
    first_attempt_at, idle_before = row.first_attempt_at, row.idle_before
    if first_attempt_at is None and settlement.attempt is not None:
        first_attempt_at = settlement.attempt.started_at
        idle_before = timedelta(0) if owner is None else owner.idle
    values: dict[str, Any] = {
        "delivery_id": settlement.delivery.id,
        "new_reason": None,
        "new_due_at": settlement.delivery.due_at,
        "new_settled_at": settlement.at,
        "new_attempt_count": _attempt_count(settlement, row),
        "new_first_attempt_at": first_attempt_at,
        "new_idle_before": idle_before,
    }
    match settlement.verdict:
        case Delivered():
            return values | {"new_status": DeliveryStatus.DELIVERED.value}
        case Dead(reason=reason):
            return values | {"new_status": DeliveryStatus.DEAD.value, "new_reason": reason.value}
        case Retry(at=at):
            return values | {"new_status": DeliveryStatus.PENDING.value, "new_due_at": at, "new_settled_at": None}


def _counted(settlement: Settlement, row: Row[Any]) -> dict[str, Any]:
    return {"delivery_id": settlement.delivery.id, "new_attempt_count": _attempt_count(settlement, row)}


def _death(settlement: Settlement, row: Row[Any], owner: _Owner | None) -> Draft | None:
    """What is told when a delivery is given up: nothing when it was of one of the gateway's own events, or failures
    would make events whose failures make events; nor when its subscription is gone."""
    delivery, verdict = settlement.delivery, settlement.verdict
    if not isinstance(verdict, Dead) or owner is None or delivery.event_type.startswith(GATEWAY_PREFIX):
        return None
    return notices.delivery_dead(
        verdict.reason,
        delivery_id=delivery.id,
        subscription_id=delivery.endpoint_id,
        event_id=delivery.event_id,
        event_type=delivery.event_type,
        event_library_id=delivery.library_id,
        attempt_count=_attempt_count(settlement, row),
        last=settlement.attempt,
        audience=owner.libraries,
    )


async def _troubles(transaction: Transaction, settlements: Sequence[Settlement], now: datetime) -> list[Draft]:
    """Disable the endpoints that are to be, and say so of them and of those that are on the way there."""
    failing = {each.delivery.endpoint_id for each in settlements if each.tell_failing}
    reasons = {each.delivery.endpoint_id: each.disable for each in settlements if each.disable is not None}
    if not failing and not reasons:
        return []
    connection = transaction.connection
    concerned = select(subscriptions).where(subscriptions.c.id.in_(failing | reasons.keys())).with_for_update()
    drafts: list[Draft] = []
    ended: list[Subscription] = []
    for row in await connection.execute(concerned):
        before = subscription_of(row, transaction.seal)
        if before.id in failing:
            drafts.append(notices.about_subscription(notices.FAILING, before))
        if before.id in reasons and (after := disabled(before, reasons[before.id], now)) != before:
            drafts.append(notices.about_subscription(notices.DISABLED, after))
            ended.append(after)
    if ended:
        await connection.execute(
            _DISABLE,
            [
                {
                    "subscription_id": after.id,
                    "new_status": after.status.value,
                    "new_disabled_reason": after.disabled_reason,
                    "new_idle_since": after.idle_since,
                }
                for after in ended
            ],
        )
    return drafts
