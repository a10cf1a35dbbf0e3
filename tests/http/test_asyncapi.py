"""The streams as a document: complete, true to what is sent, and the one that is kept beside the code."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import yaml
from litestar.routes import WebSocketRoute

from gateway.http import asyncapi, documenting, openapi
from gateway.http.frames import MEDIA_TYPE, SseEncoding
from gateway.http.messages import SocketEncoding
from gateway.http.operations import OPERATION
from gateway.http.wire.closing import CLOSE_CODES, close_code
from gateway.streams.sinks import End
from tests.builders import an_event
from tests.whatwg import interpret

Json = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Json:
    return asyncapi.document()


def test_the_committed_document_is_the_one_that_the_code_describes(document: Json) -> None:
    written = asyncapi.FILE.read_text(encoding="utf-8")
    assert written == asyncapi.text(), "run: gateway asyncapi"
    assert yaml.safe_load(written) == document


def test_every_stream_is_a_channel_and_every_channel_a_stream(document: Json) -> None:
    app = openapi.described()
    sockets = {route.path_format for route in app.routes if isinstance(route, WebSocketRoute)}
    streams = {
        path
        for path, _, handler in documenting.routes(app)
        for says in handler.opt[OPERATION].answers.values()
        if says.media_type == MEDIA_TYPE
    }
    described = {(each["address"], each["servers"][0]["$ref"]) for each in document["channels"].values()}
    assert described == {(path.replace(":str", ""), "#/servers/websocket") for path in sockets} | {
        (path, "#/servers/sse") for path in streams
    }
    operated = [operation["channel"]["$ref"] for operation in document["operations"].values()]
    assert sorted(operated) == sorted(f"#/channels/{name}" for name in document["channels"])


def test_every_reference_leads_somewhere(document: Json) -> None:
    for reference in _references(document):
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_every_example_is_good(document: Json) -> None:
    for name, message in document["components"]["messages"].items():
        for example in message["examples"]:
            assert _fits(document, name, example["payload"]), name


@pytest.mark.parametrize("earliest", ["k3v9-5", None])
def test_what_is_sent_is_what_is_described(document: Json, earliest: str | None) -> None:
    socket, sse = SocketEncoding(), SseEncoding()
    event = an_event(data=b'{"n":1}')
    told = {"cursor": "k3v9-4", "requested": "k3v9-1", "earliest": earliest}
    sent = [
        ("event", socket.event(event, "k3v9-5")),
        ("checkpoint", socket.checkpoint("k3v9-5")),
        ("gap", socket.gap(**told)),  # type: ignore[arg-type] # names and values of the same call twice
    ]
    frames = [
        ("eventFrame", sse.event(event, "k3v9-5")),
        ("gapFrame", sse.gap(**told)),  # type: ignore[arg-type] # likewise
        ("expiredFrame", sse.expired(End.EXPIRED)),
        ("expiredFrame", sse.expired(End.REVOKED)),
    ]
    sent += [(name, interpret(frame).events[0].data.encode()) for name, frame in frames]
    for name, message in sent:
        assert _fits(document, name, json.loads(message)), (name, message)
        assert not _fits(document, name, {**json.loads(message), "more": 1}), "nothing is left undescribed"


def test_every_close_code_is_described(document: Json) -> None:
    for channel in document["channels"].values():
        if "ws" in channel.get("bindings", {}):
            assert channel["x-close-codes"].keys() == {str(code) for code in CLOSE_CODES}
    assert {close_code(why) for why in End} <= CLOSE_CODES.keys()


def _fits(document: Json, message: str, payload: object) -> bool:
    schema = document["components"]["messages"][message]["payload"]
    validator = jsonschema_rs.validator_for({**schema, "components": document["components"]})
    return validator.is_valid(payload)


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "$ref":
                yield inner
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
