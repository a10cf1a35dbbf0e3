"""What attempts came to, stored: a batch of any size is a handful of statements, in one transaction.

read the deliveries ─▶ update ─▶ insert attempts ─▶ replace lanes ─▶ (disable) ─▶ (notices)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.events import GATEWAY_PREFIX, Draft
from gateway.storage import notices
from gateway.storage.attempt_rows import row_of_attempt
from gateway.storage.database import Transaction
from gateway.storage.dialects import insert_new, upsert
from gateway.storage.subscription_rows import row_of_health, subscription_of
from gateway.storage.tables import PENDING, attempts, deliveries, lanes, subscriptions
from gateway.subscriptions import Subscription, disabled, idle_by
from webhooks.deliveries import DeliveryStatus, Settlement
from webhooks.verdicts import Dead, Delivered, Retry

_IDS_AT_ONCE = 500  # parameters in one statement

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
class _State:
    """A delivery as it is when its settlement is stored."""

    pending: bool
    attempt_count: int
    has_endpoint: bool
    libraries: frozenset[str] | None
    idle: timedelta
    """Of its endpoint, by the time of settling."""


async def settle(transaction: Transaction, settlements: Sequence[Settlement], *, now: datetime) -> None:
    """See `webhooks.ports.DeliveryStore.settle`."""
    connection = transaction.connection
    states = await _states(connection, [each.delivery.id for each in settlements], now)
    known = [(each, states[each.delivery.id]) for each in settlements if each.delivery.id in states]
    pending = [(each, state) for each, state in known if state.pending]
    if pending:
        await connection.execute(_UPDATE_PENDING, [_settled(each, state) for each, state in pending])
    if late := [_counted(each, state) for each, state in known if not state.pending and _counts(each)]:
        await connection.execute(_COUNT_ATTEMPT, late)
    if made := [row_of_attempt(each.delivery.id, each.attempt) for each, _ in known if each.attempt and _counts(each)]:
        # A batch that is stored again, because its commit broke, finds its attempts there.
        await connection.execute(insert_new(connection, attempts), made)
    if health := {each.delivery.endpoint_id: each.health for each, state in known if state.has_endpoint}:
        await connection.execute(
            upsert(connection, lanes), [row_of_health(id_, value) for id_, value in health.items()]
        )
    drafts = [
        *await _troubles(connection, [each for each, state in known if state.has_endpoint], now),
        *(draft for each, state in pending if (draft := _death(each, state)) is not None),
    ]
    if drafts:
        await notices.tell(transaction, *drafts, now=now)


async def _states(connection: AsyncConnection, ids: Sequence[str], now: datetime) -> dict[str, _State]:
    found: dict[str, _State] = {}
    for start in range(0, len(ids), _IDS_AT_ONCE):
        some = (
            select(
                deliveries.c.id,
                deliveries.c.status,
                deliveries.c.attempt_count,
                subscriptions.c.id.label("endpoint_id"),
                subscriptions.c.libraries,
                subscriptions.c.idle,
                subscriptions.c.idle_since,
            )
            .outerjoin(subscriptions, subscriptions.c.id == deliveries.c.subscription_id)
            .where(deliveries.c.id.in_(ids[start : start + _IDS_AT_ONCE]))
            .with_for_update(of=deliveries)
        )
        for row in await connection.execute(some):
            found[row.id] = _State(
                pending=row.status == DeliveryStatus.PENDING,
                attempt_count=row.attempt_count,
                has_endpoint=row.endpoint_id is not None,
                libraries=row.libraries,
                idle=idle_by(row.idle or timedelta(0), row.idle_since, now),
            )
    return found


def _counts(settlement: Settlement) -> bool:
    """Whether it used up an attempt of the schedule. One that a shutdown broke off did not, and leaves no trace."""
    broken_off = isinstance(settlement.verdict, Retry) and not settlement.verdict.counts
    return settlement.attempt is not None and not broken_off


def _attempt_count(settlement: Settlement, state: _State) -> int:
    if settlement.attempt is None or not _counts(settlement):
        return state.attempt_count
    return max(state.attempt_count, settlement.attempt.number)


def _settled(settlement: Settlement, state: _State) -> dict[str, Any]:
    """The delivery's new values, under the names of `_UPDATE_PENDING`."""
    delivery, attempt, verdict = settlement.delivery, settlement.attempt, settlement.verdict
    first_attempt_at, idle_before = delivery.first_attempt_at, delivery.idle_before
    if first_attempt_at is None and attempt is not None and _counts(settlement):
        first_attempt_at, idle_before = attempt.started_at, state.idle
    row: dict[str, Any] = {
        "delivery_id": delivery.id,
        "new_reason": None,
        "new_due_at": delivery.due_at,
        "new_settled_at": settlement.at,
        "new_attempt_count": _attempt_count(settlement, state),
        "new_first_attempt_at": first_attempt_at,
        "new_idle_before": idle_before,
    }
    match verdict:
        case Delivered():
            return row | {"new_status": DeliveryStatus.DELIVERED.value}
        case Dead(reason=reason):
            return row | {"new_status": DeliveryStatus.DEAD.value, "new_reason": reason.value}
        case Retry(at=at):
            return row | {"new_status": DeliveryStatus.PENDING.value, "new_due_at": at, "new_settled_at": None}


def _counted(settlement: Settlement, state: _State) -> dict[str, Any]:
    return {"delivery_id": settlement.delivery.id, "new_attempt_count": _attempt_count(settlement, state)}


def _death(settlement: Settlement, state: _State) -> Draft | None:
    """What is told when a delivery is given up: nothing when it was of one of the gateway's own events, or failures
    would make events whose failures make events; nor when its subscription is gone."""
    delivery, verdict = settlement.delivery, settlement.verdict
    if not isinstance(verdict, Dead) or not state.has_endpoint or delivery.event_type.startswith(GATEWAY_PREFIX):
        return None
    return notices.delivery_dead(
        delivery,
        verdict.reason,
        attempt_count=_attempt_count(settlement, state),
        last=settlement.attempt,
        audience=state.libraries,
    )


async def _troubles(connection: AsyncConnection, settlements: Sequence[Settlement], now: datetime) -> list[Draft]:
    """Disable the endpoints that are to be, and say so of them and of those that are on the way there."""
    failing = {each.delivery.endpoint_id for each in settlements if each.tell_failing}
    reasons = {each.delivery.endpoint_id: each.disable for each in settlements if each.disable is not None}
    if not failing and not reasons:
        return []
    concerned = select(subscriptions).where(subscriptions.c.id.in_(failing | reasons.keys())).with_for_update()
    drafts: list[Draft] = []
    ended: list[Subscription] = []
    for before in map(subscription_of, await connection.execute(concerned)):
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
