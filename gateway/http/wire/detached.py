"""Streams that outlive their request: a uvicorn protocol that lends its connection's transport to a stream.

The response starts through Litestar, with its guards and headers. Then the stream detaches: the request's task ends,
and pages go to the transport as they are, in chunks made once for all. That is a third of the processor time of an
ASGI `send` a frame, and half the memory.

It leans on attributes of uvicorn that no document promises (`cycle.disconnected`, `cycle.chunked_encoding`,
`cycle.expected_content_length`, `cycle.scope`); tests/http/test_wire.py holds each of them to what is assumed here.
"""

import asyncio
import socket
import sys
from collections.abc import Mapping
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import MalformedInput
from gateway.http.wire.closing import PATIENCE_SECONDS
from gateway.streams.hub import Sheet
from gateway.streams.sinks import End, Reader

EXTENSION: Final = "gateway.detach"
PROTOCOL: Final = "protocol"
"""Under these names in the ASGI scope's extensions a request finds its protocol."""
BUFFER_BYTES = 128 * 2**10
"""Waiting for one reader at most, and again in the kernel, which by itself would take megabytes."""
DEAD_PEER_MS = 60_000
"""For so long a peer may acknowledge nothing, or keep its window shut, before the kernel ends the connection."""

Scope = Mapping[str, Any]


class StreamProtocol(HttpToolsProtocol):
    """For uvicorn's `Config(http=StreamProtocol)`."""

    _sink: "DetachedSink | None" = None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: {PROTOCOL: self}}

    @staticmethod
    def of(scope: Scope) -> "StreamProtocol | None":
        """The protocol that serves the request of *scope*; None under any other server."""
        found = (scope.get("extensions") or {}).get(EXTENSION, {}).get(PROTOCOL)
        return found if isinstance(found, StreamProtocol) else None

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        # The connection has another protocol now. No circle for the garbage collector, and nothing kept for no use.
        self.scope["extensions"].clear()
        self.parser = None  # type: ignore[assignment] # as uvicorn itself does

    def prepare(self, scope: Scope) -> None:
        """Make ready to detach; before the response to the request of *scope* starts.

        Raises:
            MalformedInput: another request was sent behind this one. Its bytes wait unread, and so would the news
                that the client has gone.
        """
        if not self._is_current(scope):
            raise MalformedInput("a stream has to be the last request on its connection")
        self.cycle.keep_alive = False
        if scope["http_version"] == "1.0":
            # No chunks there: the end of the connection is the end of the stream. uvicorn must not count the bytes.
            self.cycle.chunked_encoding = False
            self.cycle.expected_content_length = sys.maxsize

    def detach(self, scope: Scope, reader: Reader) -> "DetachedSink | None":
        """The connection, for *reader* alone, after its response has started and nothing waits to be written.

        None: something between here and the handler holds the response back, so it cannot be gone round; or the
        connection is lost already. Plain ASGI copes with either.
        """
        cycle = self.cycle
        if not self._is_current(scope) or cycle.disconnected or not cycle.response_started:
            return None
        if self.transport.is_closing():
            return None
        # uvicorn now takes it that the client has gone, and lets the request's task end without a complete response.
        cycle.disconnected = True
        self._sink = DetachedSink(self.transport, reader, chunked=bool(cycle.chunked_encoding))
        bound_buffers(self.transport)
        # What a request needs and a stream does not: most of the memory of a connection.
        self.scope = self.headers = self.cycle = self.parser = None  # type: ignore[assignment] # as uvicorn itself does
        self.flow.resume_reading()
        return self._sink

    def _is_current(self, scope: Scope) -> bool:
        # `cycle` is that of the newest request, begun or waiting. It is known by the extensions: a middleware that
        # copies the scope hands them on as they are.
        return self.cycle.scope.get("extensions") is scope["extensions"]

    def data_received(self, data: bytes) -> None:
        if self._sink is None:
            super().data_received(data)
        else:
            self.transport.abort()  # a reader has nothing to say

    def pause_writing(self) -> None:
        if self._sink is None:
            super().pause_writing()
        else:
            self._sink.pause()

    def resume_writing(self) -> None:
        if self._sink is None:
            super().resume_writing()
        else:
            self._sink.resume()

    def shutdown(self) -> None:
        """uvicorn has closed its listeners and is about to wait for its connections."""
        if self._sink is None:
            super().shutdown()
        else:
            self._sink.reader.server_stops()

    def connection_lost(self, exc: Exception | None) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.reader.went_away()
        elif self.scope is not None:
            self.scope["extensions"].clear()  # no circle for the garbage collector
        super().connection_lost(exc)


class DetachedSink:
    """A connection's transport, as a stream writes to it."""

    __slots__ = ("_chunked", "_transport", "is_busy", "reader")

    def __init__(self, transport: asyncio.Transport, reader: Reader, *, chunked: bool) -> None:
        self._transport = transport
        self._chunked = chunked
        self.reader = reader
        self.is_busy = False

    def write(self, sheet: Sheet) -> None:
        # uvloop's transport raises once its connection is lost, which must not reach the hub.
        if not self._transport.is_closing():
            self._transport.write(sheet.chunk if self._chunked else sheet.text)

    def end(self, sheet: Sheet, why: End) -> None:
        if self._transport.is_closing():
            return
        # In one write: at the end of a process thousands of these are done at once.
        last_chunk = b"0\r\n\r\n" if self._chunked else b""
        words = b"" if not sheet.size else sheet.chunk if self._chunked else sheet.text
        self._transport.write(words + last_chunk)
        self._transport.close()
        asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._transport.abort)

    def cut_off(self, why: End) -> None:
        self._transport.abort()

    def pause(self) -> None:
        self.is_busy = True
        self.reader.became_busy()

    def resume(self) -> None:
        self.is_busy = False
        self.reader.became_ready()


def bound_buffers(transport: asyncio.Transport) -> None:
    """Let little wait for a reader that is slow, here and in the kernel, and notice one that is dead."""
    transport.set_write_buffer_limits(high=BUFFER_BYTES)
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    if sock.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)
