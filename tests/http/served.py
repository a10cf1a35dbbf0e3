"""A gateway of streams alone, served by a real uvicorn on loopback, and readers that speak to it over bare sockets."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

import uvicorn
from litestar import Litestar, get
from litestar.config.cors import CORSConfig
from litestar.middleware import DefineMiddleware

from gateway.bus.memory import MemoryBus
from gateway.http.auth import PUBLIC, Authentication
from gateway.http.handshakes import Handshakes
from gateway.http.keyring import KeyRing
from gateway.http.measuring import Measuring, Requests
from gateway.http.problems import EXCEPTION_HANDLERS
from gateway.http.server import GatewayServer, make_config
from gateway.http.streams import stream_routes
from gateway.http.tokens import TokenDesk
from gateway.keys import Key, Scope, hash_secret
from gateway.storage.memory import MemoryEventLog
from gateway.streams.streaming import Streams
from gateway.tail import Tail
from tests.builders import NOON, HandClock, a_draft
from tests.http.doubles import Keys
from tests.until import until
from tests.whatwg import Source, interpret

PATH = "/v1/events/stream"
ORIGIN = "https://page.example"
HANGS = "/hangs"


@get(HANGS, opt={PUBLIC: True})
async def hang() -> None:
    """Answers nothing."""
    await asyncio.Event().wait()


class Served:
    """The parts, in reach of a test; time passes when the test says so."""

    def __init__(self, *, max_streams: int = 1_000, max_log_bytes: int = 64 * 2**20) -> None:
        self.clock = HandClock()
        self.seconds = 0.0
        self.bus = MemoryBus()
        self.log = MemoryEventLog(self.bus, epoch="k3v9", clock=self.clock, max_bytes=max_log_bytes)
        self.tail = Tail(self.log, self.bus)
        self.streams = Streams(
            log=self.log,
            tail=self.tail,
            max_streams=max_streams,
            heartbeat_seconds=3_600,  # beats are the test's own
            clock=self.clock,
            monotonic=lambda: self.seconds,
        )
        self.keys = Keys()
        self.requests = Requests()
        self.tokens = TokenDesk(self.keys, keyring := KeyRing(self.keys), self.clock)
        self.app = Litestar(
            route_handlers=[stream_routes(self.streams), hang],
            middleware=[
                DefineMiddleware(Measuring, requests=self.requests),
                DefineMiddleware(Authentication, keyring=keyring, tokens=self.tokens),
            ],
            plugins=[Handshakes()],
            exception_handlers=EXCEPTION_HANDLERS,
            cors_config=CORSConfig(allow_origins=[ORIGIN], allow_headers=["Authorization", "Last-Event-ID"]),
            lifespan=[lambda _: self._running()],
            openapi_config=None,
            logging_config=None,
        )
        self.port = 0

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        async with self.tail, self.streams:
            yield

    async def key(self, *scopes: Scope, libraries: Iterable[str] | None = None) -> str:
        number = len(self.keys.kept)
        await self.keys.add(
            Key(
                id=f"key_{number}",
                name="test",
                scopes=frozenset(scopes or {Scope.STREAM}),
                libraries=None if libraries is None else frozenset(libraries),
                created_at=NOON,
                hash=hash_secret(secret := f"secret-{number}"),
            )
        )
        return secret

    async def publish(self, *data: bytes, library_id: str = "books", type_: str = "document.added") -> None:
        """Returns when the hub has handed it out."""
        await self.log.append([[a_draft(data=one, library_id=library_id, type=type_) for one in data]])
        head = (await self.log.position()).head
        await until(lambda: self.tail.cursor == head)

    async def publish_numbers(self, first: int, last: int, **kwargs: str) -> None:
        """Events whose data are `{"n": first}` to `{"n": last}`."""
        await self.publish(*(b'{"n":%d}' % number for number in range(first, last + 1)), **kwargs)

    def beat(self) -> None:
        for stream in self.streams.all():
            stream.beat()

    @asynccontextmanager
    async def reading(self, path: str = PATH, *, wait: bool = True, **options: Any) -> AsyncIterator["Connection"]:
        """A reader of *path*, with a key of its own unless it brings credentials; returns when its stream is open."""
        if "secret" not in options and "token=" not in path:
            options["secret"] = await self.key()
        async with Connection(self.port, path, **options) as connection:
            if wait:
                await connection.head()
            yield connection


class Connection:
    """A request over a bare socket, and all that comes back, as it comes."""

    def __init__(
        self,
        port: int,
        path: str,
        *,
        secret: str | None = None,
        headers: dict[str, str] | None = None,
        method: str = "GET",
        version: str = "1.1",
        accept: str = "text/event-stream",
    ) -> None:
        self._port = port
        lines = [f"{method} {path} HTTP/{version}", "host: gateway.test", f"accept: {accept}"]
        if secret is not None:
            lines.append(f"authorization: Bearer {secret}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.request = ("\r\n".join(lines) + "\r\n\r\n").encode()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.ended = False
        """Whether the response came to its proper end."""

    async def __aenter__(self) -> Self:
        # A small window that does not grow, so that a reader who does not read is felt soon and surely.
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        self.reader, self.writer = await asyncio.open_connection(sock=sock, limit=2**16)
        self.writer.write(self.request)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    @property
    def source(self) -> Source:
        return interpret(self.body)

    @property
    def numbers(self) -> list[int]:
        return [json.loads(event.data)["data"]["n"] for event in self.source.events]

    async def head(self) -> None:
        async with asyncio.timeout(10):
            status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        self.status = int(status.split(" ")[1])
        for line in lines:
            name, _, value = line.partition(":")
            assert name.lower() not in self.headers, f"{name} comes twice"
            self.headers[name.lower()] = value.strip()

    async def read_piece(self) -> bool:
        """Read a little more; False at the end of the response or of the connection."""
        if "content-length" in self.headers:
            self.body += await self.reader.readexactly(int(self.headers["content-length"]))
            self.ended = True
        elif self.headers.get("transfer-encoding") == "chunked":
            return await self._read_chunk()
        else:
            piece = await self.reader.read(2**16)
            self.body += piece
            self.ended = not piece
        return not self.ended

    async def _read_chunk(self) -> bool:
        try:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            piece = await self.reader.readexactly(size + 2)
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        assert piece.endswith(b"\r\n")
        self.body += piece[:-2]
        self.ended = size == 0
        return not self.ended

    async def until(self, condition: Callable[[Source], bool]) -> Source:
        """Read until *condition* holds of what has come."""
        async with asyncio.timeout(10):
            while not condition(source := self.source):
                assert await self.read_piece(), f"the stream ended before it held: {source}"
        return source

    async def until_events(self, count: int) -> None:
        # Counted without parsing everything again for each piece: there may be thousands.
        async with asyncio.timeout(20):
            while self.body.count(b"\ndata: ") < count:
                assert await self.read_piece(), "the stream ended early"

    async def rest(self) -> Source:
        """Everything up to the end."""
        async with asyncio.timeout(10):
            while await self.read_piece():
                pass
        return self.source


@dataclass(slots=True)
class Running:
    server: GatewayServer
    task: asyncio.Task[None] = field(repr=False)


@asynccontextmanager
async def serving(served: Served, **config: Any) -> AsyncIterator[Running]:
    """Serve *served* on a free port; *config* overrides how, for example `http="h11"`."""
    listening = asyncio.Event()

    def heard(_host: str, port: int) -> None:
        served.port = port
        listening.set()

    made: uvicorn.Config = make_config(served.app, host="127.0.0.1", port=0)
    for name, value in config.items():
        setattr(made, name, value)
    server = GatewayServer(made, drains=[served.streams.drain], listening=heard)
    task = asyncio.create_task(server.serve())
    await listening.wait()
    try:
        yield Running(server, task)
    finally:
        server.should_exit = True
        await task
