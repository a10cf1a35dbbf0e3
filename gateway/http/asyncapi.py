"""The streams as AsyncAPI 3.0, as `gateway asyncapi` writes them to `openapi/asyncapi.yaml`; a test compares the two.

OpenAPI knows requests and answers. What comes over a stream once it is open, and how one ends, stands here.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field

from gateway.http.answers import Answer, Time
from gateway.http.documenting import KEY, TOKEN, Json, Schemas, query_parameters
from gateway.http.event_schemas import EXAMPLE_ANSWERED, EventBody
from gateway.http.sockets import AnyLibrarySocketQuery, SocketQuery
from gateway.http.streams import AnyLibraryQuery, StreamQuery
from gateway.http.wire.closing import CLOSE_CODES
from gateway.version import __version__

FILE = Path("openapi/asyncapi.yaml")
SSE, SOCKET = "sse", "websocket"
CURSOR = "k3v9-42"

Place = Annotated[str, Field(description="A place in the log: opaque, at most 64 of `[A-Za-z0-9_-]`.")]
Earliest = Annotated[str | None, Field(description="The first event that there is; null when there is none.")]
Requested = Annotated[str, Field(max_length=64, description="What was asked for, cut to 64 characters.")]


class FrameFields(BaseModel):
    """The fields of a frame beside its `data`."""

    id: Place
    event: Annotated[str, Field(description="The event's type; left out with `named=false`.")]


class Gap(Answer):
    """Events were missed for good: the log no longer holds what was asked for."""

    requested: Requested
    earliest: Earliest


class Expired(Answer):
    """The last frame of a stream whose token or key is no longer good."""

    reason: Literal["expired", "revoked"]


class EventMessage(Answer):
    """An event."""

    type: Literal["event"]
    event_type: str
    id: str
    cursor: Place
    library_id: str
    timestamp: Time
    data: dict[str, Any]


class CheckpointMessage(Answer):
    """Up to here nothing is missing: resume with `after=<cursor>`. The first message of a socket that starts live."""

    type: Literal["checkpoint"]
    cursor: Place


class GapMessage(Answer):
    """Events were missed for good; the stream goes on after `cursor`, just before the earliest that there is."""

    type: Literal["gap"]
    requested: Requested
    earliest: Earliest
    cursor: Place


def document() -> Json:
    schemas = Schemas()
    messages = _messages(schemas)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Arrw Gateway",
            "version": __version__,
            "description": "Streams of events: Server-Sent Events and WebSocket, with one filter. What is asked and "
            "answered otherwise is described in openapi.json.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            SSE: {"host": "localhost:8000", "protocol": "http", "security": _security()},
            SOCKET: {"host": "localhost:8000", "protocol": "ws", "security": _security()},
        },
        "channels": {
            "events": _sse("/v1/events/stream", "The events of all libraries that the caller may see."),
            "libraryEvents": _sse("/v1/libraries/{library_id}/events/stream", "The events of one library."),
            "eventsSocket": _socket("/v1/events/ws", "The same over WebSocket.", AnyLibrarySocketQuery),
            "libraryEventsSocket": _socket("/v1/libraries/{library_id}/ws", "The same over WebSocket.", SocketQuery),
        },
        "operations": {
            "streamEvents": _sends("events", "Stream events", AnyLibraryQuery),
            "streamLibraryEvents": _sends("libraryEvents", "Stream the events of one library", StreamQuery),
            "sendEvents": _sends("eventsSocket", "Stream events over WebSocket"),
            "sendLibraryEvents": _sends("libraryEventsSocket", "Stream the events of one library over WebSocket"),
        },
        "components": {
            "messages": messages,
            "securitySchemes": {
                KEY: {"type": "http", "scheme": "bearer", "description": "A key with the scope `stream`."},
                TOKEN: {
                    "type": "httpApiKey",
                    "in": "query",
                    "name": "token",
                    "description": "A stream token from `POST /v1/stream-tokens`. A key is never accepted here.",
                },
            },
            "schemas": schemas.all(),
        },
    }


def text() -> str:
    """The document, the same for the same code."""
    written: str = yaml.safe_dump(document(), sort_keys=False, allow_unicode=True, width=120)
    return written


def _messages(schemas: Schemas) -> Json:
    told = {"requested": "k3v9-7", "earliest": CURSOR}
    message = {**EXAMPLE_ANSWERED, "type": "event", "event_type": EXAMPLE_ANSWERED["type"], "cursor": CURSOR}
    frames = {
        "eventFrame": ("An event", EventBody, EXAMPLE_ANSWERED, "document.added"),
        "gapFrame": ("gateway.gap", Gap, told, "gateway.gap"),
        "expiredFrame": ("gateway.expired", Expired, {"reason": "expired"}, "gateway.expired"),
    }
    messages: dict[str, tuple[str, type[BaseModel], Json]] = {
        "event": (
            "An event",
            EventMessage,
            {"type": "event", "event_type": "document.added", "cursor": CURSOR, **message},
        ),
        "checkpoint": ("Nothing is missing", CheckpointMessage, {"type": "checkpoint", "cursor": CURSOR}),
        "gap": ("Something is missing", GapMessage, {"type": "gap", "cursor": "k3v9-41", **told}),
    }
    fields = schemas.of(FrameFields)
    return {
        **{
            name: {
                "title": title,
                "headers": fields,
                "payload": schemas.of(payload),
                "examples": [{"headers": {"id": CURSOR, "event": event}, "payload": example}],
            }
            for name, (title, payload, example, event) in frames.items()
        },
        **{
            name: {"title": title, "payload": schemas.of(payload), "examples": [{"payload": example}]}
            for name, (title, payload, example) in messages.items()
        },
    }


def _sse(address: str, description: str) -> Json:
    return _channel(
        address,
        SSE,
        f"{description} Server-Sent Events: `id` is the event's cursor, `data` the event. Between events come "
        "comments, or frames of `id` alone, which move the reader's cursor. An end comes with a `retry` before it.",
        ("eventFrame", "gapFrame", "expiredFrame"),
    )


def _socket(address: str, description: str, query: type[BaseModel]) -> Json:
    return {
        **_channel(
            address,
            SOCKET,
            f"{description} One JSON message an event. What a reader says is ignored; pings have to be answered.",
            ("event", "checkpoint", "gap"),
        ),
        "bindings": {"ws": {"method": "GET", "query": _query(query), "bindingVersion": "0.1.0"}},
        "x-close-codes": {str(code): meaning for code, meaning in CLOSE_CODES.items()},
    }


def _channel(address: str, server: str, description: str, messages: tuple[str, ...]) -> Json:
    channel: Json = {
        "address": address,
        "description": description,
        "servers": [{"$ref": f"#/servers/{server}"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
    }
    if "{library_id}" in address:
        channel["parameters"] = {"library_id": {"description": "Whose events."}}
    return channel


def _sends(channel: str, summary: str, query: type[BaseModel] | None = None) -> Json:
    """The gateway sends: AsyncAPI speaks of the application that it describes."""
    operation: Json = {"action": "send", "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}
    if query is not None:
        operation["bindings"] = {"http": {"method": "GET", "query": _query(query), "bindingVersion": "0.3.0"}}
    return operation


def _query(query: type[BaseModel]) -> Json:
    """The parameters of *query* as one schema."""
    return {
        "type": "object",
        "properties": {
            each["name"]: {**each["schema"], "description": each["description"]} for each in query_parameters(query)
        },
    }


def _security() -> list[Json]:
    return [{"$ref": f"#/components/securitySchemes/{name}"} for name in (KEY, TOKEN)]
