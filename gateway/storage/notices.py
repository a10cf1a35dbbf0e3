"""The gateway's own events: what happened to subscriptions, deliveries and keys, as drafts for the log.

They never hold a URL, a header or a secret: whoever may read `gateway.*` need not know where others are told.
"""

from datetime import datetime
from typing import Any

import msgspec
from typeid import TypeID

from gateway.event_types import EventTypeRecord
from gateway.events import GATEWAY_LIBRARY, Cursor, Draft, EventType
from gateway.storage.database import Transaction
from gateway.storage.log import append
from gateway.subscriptions import Subscription
from webhooks.deliveries import Attempt
from webhooks.verdicts import Reason

CREATED = "gateway.subscription.created"
UPDATED = "gateway.subscription.updated"
DISABLED = "gateway.subscription.disabled"
RESUMED = "gateway.subscription.resumed"
FAILING = "gateway.subscription.failing"
DELETED = "gateway.subscription.deleted"
DELIVERY_DEAD = "gateway.delivery.dead"
KEY_REVOKED = "gateway.key.revoked"
EVENT_TYPE_UPDATED = "gateway.event_type.updated"


def about_subscription(type_: str, subscription: Subscription) -> Draft:
    """`gateway.subscription.…`: the subscription as it is after what happened, or as it was when it was deleted."""
    filter_ = subscription.filter
    data = {
        "subscription_id": subscription.id,
        "status": subscription.status,
        "disabled_reason": subscription.disabled_reason,
        "library_ids": None if filter_.library_ids is None else sorted(filter_.library_ids),
        "types": None if filter_.types is None else sorted(filter_.types),
        "filter": filter_.expression,
        "description": subscription.description,
    }
    return _notice(type_, data, subscription.libraries)


def delivery_dead(
    reason: Reason,
    *,
    delivery_id: str,
    subscription_id: str,
    event_id: str,
    event_type: str,
    event_library_id: str,
    attempt_count: int,
    last: Attempt | None,
    audience: frozenset[str] | None,
) -> Draft:
    """`gateway.delivery.dead`. *last* is the attempt that was the last straw; None when it was given up without one."""
    data = {
        "delivery_id": delivery_id,
        "subscription_id": subscription_id,
        "event_id": event_id,
        "event_type": event_type,
        "event_library_id": event_library_id,
        "reason": reason,
        "attempt_count": attempt_count,
        "last_status_code": None if last is None else last.status_code,
        "last_error": None if last is None else last.error,
    }
    return _notice(DELIVERY_DEAD, data, audience)


def key_revoked(key_id: str) -> Draft:
    return _notice(KEY_REVOKED, {"key_id": key_id}, None)


def event_type_updated(record: EventTypeRecord) -> Draft:
    """`gateway.event_type.updated`: the whole of it, so that every process checks by it from here on."""
    data = {
        "type": record.type,
        "description": record.description,
        "schema": record.schema,
        "validation": record.validation,
    }
    return _notice(EVENT_TYPE_UPDATED, data, None)


async def tell(transaction: Transaction, *drafts: Draft, now: datetime) -> Cursor:
    """Append *drafts* to the log within *transaction*. Answers the place of the last."""
    await append(transaction, [drafts], now=now)
    return transaction.appended[-1].cursor


def _notice(type_: str, data: dict[str, Any], audience: frozenset[str] | None) -> Draft:
    return Draft(
        id=str(TypeID("evt")),
        type=EventType(type_),
        library_id=GATEWAY_LIBRARY,
        data=msgspec.json.encode(data),
        audience=audience,
    )
