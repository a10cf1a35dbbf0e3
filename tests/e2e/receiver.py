"""An HTTP receiver as a process: `python -m tests.e2e.receiver --port 9000 --record posts.jsonl`.

Each POST becomes a line of the record before it is answered, and what it is answered can be changed while it runs:

    POST /hooks/a          recorded, and answered as /hooks/a behaves: 204 until told otherwise
    PUT /behaviours/hooks/a {"status": 429, "headers": {"Retry-After": "2"}}
    GET /page              a page of another origin than the gateway's, for browsers
"""

import argparse
import asyncio
import base64
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from aiohttp import web

PAGE = "<!doctype html><meta charset=utf-8><title>another origin</title>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What POSTs to a path get."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    silent: bool = False
    """Accept the request, and never answer."""
    failing: float = 0.0
    """The share of requests, chosen at random, that gets 500 instead."""
    slow_seconds: float = 0.0
    """At most so long, at random, until it answers."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A request as it came, and what it was answered; `status` is None when it never was."""

    at: float
    """When its body was complete: seconds on CLOCK_MONOTONIC, which all processes of a machine share."""
    path: str
    headers: dict[str, str]
    body_base64: str
    status: int | None
    at_once: int = 1
    """How many requests to this path were open then, itself included."""

    @property
    def body(self) -> bytes:
        return base64.b64decode(self.body_base64)

    @property
    def event_id(self) -> str:
        return self.headers["webhook-id"]


class Receiver:
    def __init__(self, record: Path) -> None:
        self._record = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._behaviours: dict[str, tuple[Behaviour, random.Random]] = {}
        self._open: Counter[str] = Counter()
        self._encoder = msgspec.json.Encoder()

    def application(self) -> web.Application:
        application = web.Application(client_max_size=2**21)
        application.router.add_get("/page", self._page)
        application.router.add_put("/behaviours/{path:.*}", self._behave)
        application.router.add_post("/{path:.*}", self._receive)
        return application

    async def _receive(self, request: web.Request) -> web.Response:
        self._open[request.path] += 1
        try:
            return await self._answer(request)
        finally:
            self._open[request.path] -= 1

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        behaviour, chance = self._behaviours.get(request.path) or (Behaviour(), random.Random(0))
        status = 500 if chance.random() < behaviour.failing else behaviour.status
        post = Post(
            at=time.monotonic(),
            path=request.path,
            headers={name.lower(): value for name, value in request.headers.items()},
            body_base64=base64.b64encode(body).decode(),
            status=None if behaviour.silent else status,
            at_once=self._open[request.path],
        )
        os.write(self._record, self._encoder.encode(post) + b"\n")
        if behaviour.silent:
            await asyncio.Event().wait()
        if behaviour.slow_seconds:
            await asyncio.sleep(behaviour.slow_seconds * chance.random())
        return web.Response(status=status, headers=behaviour.headers, text=behaviour.body)

    async def _behave(self, request: web.Request) -> web.Response:
        behaviour = msgspec.json.decode(await request.read(), type=Behaviour)
        self._behaviours["/" + request.match_info["path"]] = behaviour, random.Random(behaviour.seed)
        return web.Response(status=204)

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")


async def serve(port: int, record: Path) -> None:
    # A silent handler ends when its client goes away, or the process would keep all of them.
    runner = web.AppRunner(Receiver(record).application(), access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await asyncio.Event().wait()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--record", type=Path, required=True)
    chosen = arguments.parse_args()
    asyncio.run(serve(chosen.port, chosen.record))


if __name__ == "__main__":
    main()
