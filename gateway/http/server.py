"""Serve the app on uvicorn, and stop it: within seconds, with exit status 0, whoever is connected.

SIGTERM, SIGINT ─▶ listeners close ─▶ streams end (each with its own `retry:`) ┐
                                      requests in flight get a moment          ├─▶ lifespan ends ─▶ exit 0
                                      idle connections close                   ┘
"""

import asyncio
import gc
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from socket import socket
from typing import Any

import structlog
import uvicorn
from uvicorn.server import HANDLED_SIGNALS

from gateway.http.wire import SocketProtocol, StreamProtocol

GRACE_SECONDS = 2
"""For requests in flight. By itself uvicorn waits without end."""
BACKLOG = 16_384
"""Connections that wait to be accepted: all that come back at once after a restart. The kernel's limit applies."""
MAX_MESSAGE_BYTES = 4 * 2**10
"""What a WebSocket's reader says is ignored, and may be no longer than this."""
GC_THRESHOLDS = (50_000, 20, 100)
"""A full collection with thousands of streams open takes a tenth of a second, and finds next to nothing."""
SWITCH_SECONDS = 0.0001
"""How long a thread waits for the interpreter while another is busy. The writer's takes it anew after each step of the
database, of which a row is one: with the usual 5 ms a busy loop held publishing to a tenth of what it is with 0.5, and
a read of a thousand rows took 86 ms with 0.5, 21 with this."""

_log = structlog.get_logger(__name__)

Drain = Callable[[], Awaitable[None]]


def make_config(app: Any, *, host: str, port: int, heartbeat_seconds: float = 15) -> uvicorn.Config:  # noqa: ANN401 - Litestar's and uvicorn's ASGI types differ in name only
    """How the gateway is served. Port 0 takes any free one; WebSockets are pinged every *heartbeat_seconds*."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=StreamProtocol,
        ws=SocketProtocol,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # a page of messages is made once for all, not compressed for each
        ws_ping_interval=heartbeat_seconds,
        ws_ping_timeout=heartbeat_seconds,
        lifespan="auto",
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_SECONDS,
        # The access log would hold tokens. Other logs go where the gateway's own go.
        access_log=False,
        log_config=None,
        server_header=False,
    )


class GatewayServer(uvicorn.Server):
    """uvicorn's server, with an end. *drains* run beside uvicorn's own shutdown, after the listeners have closed: those
    of streams that its protocol does not reach. *listening* is told the address once it takes connections."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drains: Sequence[Drain] = (),
        listening: Callable[[str, int], None] = lambda _host, _port: None,
    ) -> None:
        super().__init__(config)
        self._drains = drains
        self._listening = listening

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port, *_ = self.servers[0].sockets[0].getsockname()
            self._listening(host, port)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        # First nobody can come back to this process, then all are sent away.
        for server in self.servers:
            server.close()
        async with asyncio.TaskGroup() as group:
            for drain in self._drains:
                group.create_task(_run(drain))
            group.create_task(super().shutdown(sockets))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own raises the signal again at the end, and the process would seem to have been killed by it."""
        before = {number: signal.signal(number, self.handle_exit) for number in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(
    app: Any,  # noqa: ANN401 - as above
    *,
    host: str,
    port: int,
    heartbeat_seconds: float = 15,
    within: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    drains: Sequence[Drain] = (),
    listening: Callable[[str, int], None] = lambda _host, _port: None,
    listener: socket | None = None,
) -> None:
    """Serve *app*, inside *within*, until SIGTERM or SIGINT; then stop as described above and return. With *listener*
    take connections from that one, which other processes may share, instead of *host* and *port*.

    Raises:
        SystemExit: it could not listen; the reason has been logged.
        Exception: whatever *within* raises.
    """
    raise_open_files()
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_SECONDS)
    config = make_config(app, host=host, port=port, heartbeat_seconds=heartbeat_seconds)
    server = GatewayServer(config, drains=drains, listening=listening)

    async def run() -> None:
        async with within():
            await server.serve(None if listener is None else [listener])

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(run())
    # What thousands of streams have left behind is not worth a last collection: the kernel takes it all back at once.
    gc.freeze()


def raise_open_files() -> None:
    """Take as many file descriptors as this process may have: one for each stream, and many for receivers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(drain: Drain) -> None:
    try:
        await drain()
    except Exception:  # noqa: BLE001 - it must not keep the rest of the shutdown from happening
        _log.exception("server.drain_failed")
