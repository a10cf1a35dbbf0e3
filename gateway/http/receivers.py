"""What receivers get, as the `webhooks` section of the OpenAPI document."""

from collections.abc import Callable
from typing import Any

from gateway.http.event_schemas import EXAMPLE_ANSWERED, EventBody

Json = dict[str, Any]

_HEADERS = {
    "webhook-id": "The event's id: the same on every attempt and replay. Remember it to act once.",
    "webhook-timestamp": "Unix seconds of this attempt. Refuse what is more than five minutes away.",
    "webhook-signature": (
        "Space-separated, one for each secret that is valid: `v1,<base64 HMAC-SHA256>` of `id.timestamp.body`, or with "
        '`"signature": "v1a"` Ed25519.'
    ),
    "user-agent": "`arrw-gateway/<version>`",
    "traceparent": "W3C trace context, if the publisher sent one.",
}

_DESCRIPTION = """\
A POST as [Standard Webhooks](https://www.standardwebhooks.com) 1.0 says; the body is the event's JSON, byte for byte \
the same each time. Success is a 2xx within the timeout. A redirect is a failure and is never followed; 410 ends the \
delivery and disables the subscription; `Retry-After` on 429 and 503 is obeyed. Anything else is tried again after \
5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h, and is then a dead letter."""


def webhooks(schema_of: Callable[[Any], Json]) -> Json:
    parameters = [
        {
            "name": name,
            "in": "header",
            "required": name != "traceparent",
            "description": description,
            "schema": {"type": "string"},
        }
        for name, description in _HEADERS.items()
    ]
    cloud_event = {
        "specversion": "1.0",
        "id": EXAMPLE_ANSWERED["id"],
        "source": f"/libraries/{EXAMPLE_ANSWERED['library_id']}",
        "type": EXAMPLE_ANSWERED["type"],
        "time": EXAMPLE_ANSWERED["timestamp"],
        "datacontenttype": "application/json",
        "data": EXAMPLE_ANSWERED["data"],
    }
    return {
        "event": {
            "post": {
                "operationId": "receive_event",
                "tags": ["What a receiver gets"],
                "summary": "An event for a subscription",
                "description": _DESCRIPTION,
                "security": [],
                "parameters": parameters,
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": schema_of(EventBody), "example": EXAMPLE_ANSWERED},
                        "application/cloudevents+json": {
                            "schema": {"type": "object", "description": 'With `"payload": "cloudevents"`.'},
                            "example": cloud_event,
                        },
                    },
                },
                "responses": {
                    "2XX": {"description": "Received: it is not sent again."},
                    "410": {"description": "Never again: the subscription is disabled."},
                    "429": {"description": "Not now: nothing is sent before `Retry-After`."},
                    "503": {"description": "Not now: nothing is sent before `Retry-After`."},
                    "default": {"description": "Failed: it is tried again later."},
                },
            }
        }
    }
