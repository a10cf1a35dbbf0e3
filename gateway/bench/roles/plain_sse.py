"""The baseline of streams: Litestar's `ServerSentEvent`, with a queue for each reader and nothing kept anywhere."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, get, post
from litestar.response import ServerSentEvent, ServerSentEventMessage

from gateway.bench.marks import BASELINE_BEGUN
from gateway.bench.roles.answering import answer_calls
from gateway.bench.roles.serving import BaselineServer

_queues: set[asyncio.Queue[ServerSentEventMessage]] = set()
_numbers = itertools.count(1)


@get("/v1/events/stream")
async def stream() -> ServerSentEvent:
    return ServerSentEvent(_messages())


async def _messages() -> AsyncIterator[ServerSentEventMessage]:
    queue: asyncio.Queue[ServerSentEventMessage] = asyncio.Queue()
    _queues.add(queue)
    try:
        yield ServerSentEventMessage(comment=BASELINE_BEGUN, data=None)
        while True:
            yield await queue.get()
    finally:
        _queues.discard(queue)


@post("/v1/events", status_code=202)
async def publish(request: Request[Any, Any, Any]) -> Response[bytes]:
    events = msgspec.json.decode(await request.body())
    for event in events if isinstance(events, list) else [events]:
        # Once for all readers, as anybody would who has thought about it.
        message = ServerSentEventMessage(
            data=msgspec.json.encode(event).decode(), event=event["type"], id=str(next(_numbers))
        )
        for queue in _queues:
            queue.put_nowait(message)
    return Response(b"{}", media_type="application/json")


if __name__ == "__main__":
    answer_calls({"listen": BaselineServer(Litestar([stream, publish], openapi_config=None)).listen})
