"""`gateway.ping`: an event that is in no log, to see whether a receiver hears and verifies."""

from datetime import datetime

from typeid import TypeID

from gateway.events import GATEWAY_LIBRARY, Cursor, EventType, LoggedEvent
from webhooks.deliveries import Delivery

PING = EventType("gateway.ping")


def a_ping(subscription_id: str, now: datetime) -> Delivery:
    """A delivery to send to *subscription_id* once, and to store nowhere."""
    event = LoggedEvent(
        cursor=Cursor(0),
        id=str(TypeID("evt")),
        type=PING,
        library_id=GATEWAY_LIBRARY,
        timestamp=now,
        accepted_at=now,
        data=b'{"subscription_id":"%b"}' % subscription_id.encode(),
    )
    return Delivery(
        id=str(TypeID("dlv")),
        endpoint_id=subscription_id,
        event_id=event.id,
        event_type=event.type.value,
        library_id=event.library_id,
        cursor=event.cursor,
        body=event.body,
        event_time=now,
        created_at=now,
        due_at=now,
    )
