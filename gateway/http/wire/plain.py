"""Streams through plain ASGI, for any server but ours: a `send` for each piece, and a task for as long as it lasts."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from gateway.http.wire.closing import LINGER_SECONDS, PATIENCE_SECONDS, close_code
from gateway.streams.hub import Sheet
from gateway.streams.sinks import End, Reader

HIGH_BYTES = 128 * 2**10
LOW_BYTES = 32 * 2**10
"""The reader is busy from the one on, and ready again from the other."""
JOIN_BYTES = 64 * 2**10
"""What waits is joined up to here: a joined body is a copy."""

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class PlainSink:
    """Keeps what is written until the server takes it. How it is put to the server is for `PlainStream` and
    `PlainSocket` to say."""

    gone: ClassVar[str]
    """The message by which the server says that the reader has left."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._waiting: deque[Sheet] = deque()
        self._size = 0
        self._wake = asyncio.Event()
        self._why: End | None = None
        self._sending: asyncio.Task[None] | None = None
        self.is_busy = False

    def write(self, sheet: Sheet) -> None:
        self._waiting.append(sheet)
        self._size += sheet.size
        self._wake.set()
        if self._size > HIGH_BYTES and not self.is_busy:
            self.is_busy = True
            self._reader.became_busy()

    def end(self, sheet: Sheet, why: End) -> None:
        if sheet.size:
            self.write(sheet)
        self._end(why, PATIENCE_SECONDS)

    def cut_off(self, why: End) -> None:
        self._stop()

    async def serve(self, receive: Receive, send: Send) -> None:
        """Send what is written, until the stream ends or its reader has gone. The response has started already."""
        self._sending = asyncio.create_task(self._send_on(send), name="stream-send")
        leaving = asyncio.create_task(self._left(receive), name="stream-receive")
        both = (self._sending, leaving)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)
            self._reader.went_away()
        for task in both:
            # A server may say by an OSError that the connection is lost; that is no news here.
            if not task.cancelled() and (error := task.exception()) and not isinstance(error, OSError):
                raise error

    def _end(self, why: End, seconds: float) -> None:
        self._why = why
        self._wake.set()
        asyncio.get_running_loop().call_later(seconds, self._stop)

    def _stop(self) -> None:
        if self._sending is not None:
            self._sending.cancel()

    def _drop_waiting(self) -> None:
        while self._waiting:
            self._size -= self._waiting.popleft().size

    async def _send_on(self, send: Send) -> None:
        while True:
            while self._waiting:
                await self._send_some(send)
            if self._why is not None:
                await self._send_end(send, self._why)
                return
            self._wake.clear()
            await self._wake.wait()

    def _was_sent(self, size: int) -> None:
        self._size -= size
        if self.is_busy and self._size <= LOW_BYTES:
            self.is_busy = False
            self._reader.became_ready()

    async def _left(self, receive: Receive) -> None:
        while (await receive())["type"] != self.gone:
            pass

    async def _send_some(self, send: Send) -> None:
        """Send one or more of what waits, and tell `_was_sent`."""
        raise NotImplementedError

    async def _send_end(self, send: Send, why: End) -> None:
        raise NotImplementedError


class PlainStream(PlainSink):
    """The body of a response."""

    gone = "http.disconnect"

    async def _send_some(self, send: Send) -> None:
        sheets = [self._waiting.popleft()]
        size = sheets[0].size
        while self._waiting and size + self._waiting[0].size <= JOIN_BYTES:
            sheets.append(self._waiting.popleft())
            size += sheets[-1].size
        body = sheets[0].text if len(sheets) == 1 else b"".join(sheet.text for sheet in sheets)
        await send({"type": "http.response.body", "body": body, "more_body": True})
        self._was_sent(size)

    async def _send_end(self, send: Send, why: End) -> None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class PlainSocket(PlainSink):
    """A WebSocket. The server pings it, closes it when it breaks the protocol, and bounds what it says."""

    gone = "websocket.disconnect"

    def cut_off(self, why: End) -> None:
        # It is to learn by the code why; what waited in front of that is in the log, where it finds it again.
        self._drop_waiting()
        self._end(why, LINGER_SECONDS)

    async def _send_some(self, send: Send) -> None:
        sheet = self._waiting.popleft()
        for frame in sheet.frames:
            await send({"type": "websocket.send", "text": frame.decode()})
        self._was_sent(sheet.size)

    async def _send_end(self, send: Send, why: End) -> None:
        await send({"type": "websocket.close", "code": close_code(why), "reason": why})
