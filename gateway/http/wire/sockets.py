"""WebSockets that outlive their request: a uvicorn protocol that gives its connection away after the handshake.

    SocketProtocol ──handshake, by way of Litestar──▶ detach ──▶ DetachedSocket, which is the connection's protocol
    (uvicorn's own)                                              from then on, and the sink that a stream writes to

A page's messages go to the transport in one buffer, made once for all readers of a channel. What comes in is read by
`websockets`: pongs, pings, the closing handshake; what else a reader says is ignored, and its length bounded.

It leans on attributes of uvicorn and websockets that no document promises (`conn`, `read_paused`, `close_sent`,
`handshake_complete`; `debug`); tests/http/test_socket_wire.py holds them to what is assumed here.
"""

import asyncio
import logging
from typing import Any

from litestar import WebSocket
from litestar.connection.base import empty_receive, empty_send
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from gateway.http.wire.closing import FAILED, LINGER_SECONDS, PATIENCE_SECONDS, close_code
from gateway.http.wire.detached import EXTENSION, PROTOCOL, Scope, bound_buffers
from gateway.http.wire.plain import PlainSocket
from gateway.streams.hub import Sheet
from gateway.streams.sinks import End, Reader
from gateway.streams.streaming import Opening

_quiet = logging.getLogger("gateway.http.wire.sockets")
_quiet.setLevel(logging.WARNING)
"""For uvicorn and websockets, which log each request's line: a token may stand in it."""


class SocketProtocol(WebSocketsSansIOProtocol):
    """For uvicorn's `Config(ws=SocketProtocol)`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - handed on as they are
        super().__init__(*args, **kwargs)
        self.logger = self.conn.logger = _quiet
        self.conn.debug = False

    @staticmethod
    def of(scope: Scope) -> "SocketProtocol | None":
        """The protocol that serves the WebSocket of *scope*; None under any other server."""
        found = (scope.get("extensions") or {}).get(EXTENSION, {}).get(PROTOCOL)
        return found if isinstance(found, SocketProtocol) else None

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.handshake_complete:  # else it was refused: no task was started, and there is no scope
            self.scope["extensions"][EXTENSION] = {PROTOCOL: self}

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True  # it was refused, and uvicorn need not log an error about that

    def detach(self, reader: Reader) -> "DetachedSocket | None":
        """The connection, for *reader* alone, once its handshake is done.

        None: it is lost, or about to be. Plain ASGI copes with that.
        """
        if self.disconnected or self.conn.state is not OPEN or self.transport.is_closing():
            return None
        self.stop_keepalive()
        transport, self.transport = self.transport, _GivenAway()  # uvicorn closes it when the request's task ends
        sink = DetachedSocket(transport, self.conn, reader, self.connections, self.config.ws_ping_interval)
        self.connections.discard(self)
        self.connections.add(sink)  # type: ignore[arg-type] # all that uvicorn does with it is `shutdown`
        transport.set_protocol(sink)
        bound_buffers(transport)
        if self.read_paused:
            transport.resume_reading()
        self._let_go()
        return sink

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._let_go()

    def _let_go(self) -> None:
        """No circle for the garbage collector."""
        if hasattr(self, "scope"):
            self.scope["extensions"].pop(EXTENSION, None)


class _GivenAway(asyncio.Transport):
    """In the place of a transport that is another protocol's now."""

    def close(self) -> None:
        pass


class DetachedSocket(asyncio.Protocol):
    """A WebSocket's connection: to its transport a protocol, to its stream a sink."""

    __slots__ = (
        "_alive",
        "_conn",
        "_connections",
        "_ping_seconds",
        "_timer",
        "_transport",
        "is_busy",
        "reader",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        conn: ServerProtocol,
        reader: Reader,
        connections: set[Any],
        ping_seconds: float | None,
    ) -> None:
        self._transport = transport
        self._conn = conn
        self._connections = connections
        self._ping_seconds = ping_seconds
        self._alive = True
        """Whether anything has shown since the last ping that somebody is there."""
        self._timer: asyncio.TimerHandle | None = None
        self.reader = reader
        self.is_busy = False
        self._schedule_ping()

    # --- to its stream -------------------------------------------------------------------------------------------

    def write(self, sheet: Sheet) -> None:
        # uvloop's transport raises once its connection is lost, which must not reach the hub.
        if not self._transport.is_closing():
            self._transport.write(sheet.messages)

    def end(self, sheet: Sheet, why: End) -> None:
        if sheet.size:
            self.write(sheet)
        self._close(close_code(why), why, PATIENCE_SECONDS)

    def cut_off(self, why: End) -> None:
        self._close(close_code(why), why, LINGER_SECONDS)

    # --- to uvicorn and the transport ----------------------------------------------------------------------------

    def shutdown(self) -> None:
        """uvicorn has closed its listeners and is about to wait for its connections."""
        self.reader.server_stops()
        asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        self._alive = True
        was_open = self._conn.state is OPEN
        self._conn.receive_data(data)
        self._conn.events_received()  # what it says is nothing to us; pings are answered, and a close, by `websockets`
        self._send_control()
        if self._conn.close_rcvd is not None:
            self._transport.close()
        # Whoever breaks the protocol is told so, and goes on to be read: else a reset could overtake the word.
        if was_open and self._conn.state is not OPEN:
            self.reader.went_away()
            self._abort_after(PATIENCE_SECONDS)

    def eof_received(self) -> None:
        self.reader.went_away()
        self._abort_after(PATIENCE_SECONDS)

    def pause_writing(self) -> None:
        self.is_busy = True
        self.reader.became_busy()

    def resume_writing(self) -> None:
        self.is_busy = False
        self._alive = True
        self.reader.became_ready()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        self._connections.discard(self)
        self.reader.went_away()

    # --- inside --------------------------------------------------------------------------------------------------

    def _close(self, code: int, reason: str, seconds: float) -> None:
        """Begin the closing handshake; the peer has so many *seconds* to take it and answer."""
        if self._transport.is_closing() or self._conn.state is not OPEN:
            return
        self._conn.send_close(code, reason)
        self._transport.write(b"".join(self._conn.data_to_send()))
        self._abort_after(seconds)

    def _send_control(self) -> None:
        """What `websockets` answers. Pongs are not kept for who takes nothing: they would pile up without end."""
        answers = b"".join(self._conn.data_to_send())
        if answers and not self._transport.is_closing() and (not self.is_busy or self._conn.state is not OPEN):
            self._transport.write(answers)

    def _abort_after(self, seconds: float) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._transport.abort)

    def _schedule_ping(self) -> None:
        if self._ping_seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(self._ping_seconds, self._ping)

    def _ping(self) -> None:
        # A busy one takes nothing at the moment, pings neither: that is judged by how far it is behind.
        if not self.is_busy:
            if not self._alive:
                self._close(FAILED, "no answer to a ping", PATIENCE_SECONDS)
                self.reader.went_away()
                return
            self._alive = False
            self._conn.send_ping(b"")
            self._send_control()
        self._schedule_ping()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def serve(socket: WebSocket[Any, Any, Any], opening: Opening) -> None:
    """Take the handshake, and let *opening* begin or give its place back. Plain ASGI returns at the stream's end."""
    try:
        await socket.accept()
        protocol = SocketProtocol.of(socket.scope)
        sink = None if protocol is None else protocol.detach(opening.stream)
        if sink is not None:
            socket.receive, socket.send = empty_receive, empty_send  # else a circle, with all of uvicorn's part in it
            opening.begin(sink)
        else:
            plain = PlainSocket(opening.stream)
            opening.begin(plain)
            await plain.serve(socket.receive, socket.send)
    finally:
        opening.abandon()
