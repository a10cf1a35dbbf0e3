"""Streams through plain ASGI, for any server but ours: a `send` for each piece, and a task for as long as it lasts."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from gateway.streams.hub import Sheet
from gateway.streams.sinks import Reader

HIGH_BYTES = 128 * 2**10
LOW_BYTES = 32 * 2**10
"""The reader is busy from the one on, and ready again from the other."""
JOIN_BYTES = 64 * 2**10
"""What waits is joined up to here: a joined body is a copy."""
PATIENCE_SECONDS = 1.5
"""For a reader to take the end of its stream."""

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class PlainSink:
    """Keeps what is written until the server takes it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._waiting: deque[Sheet] = deque()
        self._size = 0
        self._wake = asyncio.Event()
        self._ending = False
        self._sending: asyncio.Task[None] | None = None
        self.is_busy = False

    def write(self, sheet: Sheet) -> None:
        self._waiting.append(sheet)
        self._size += sheet.size
        self._wake.set()
        if self._size > HIGH_BYTES and not self.is_busy:
            self.is_busy = True
            self._reader.became_busy()

    def end(self, sheet: Sheet) -> None:
        self.write(sheet)
        self._ending = True
        asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self.abort)

    def abort(self) -> None:
        if self._sending is not None:
            self._sending.cancel()

    async def serve(self, receive: Receive, send: Send) -> None:
        """Send what is written, until the stream ends or its reader has gone. The response has started already."""
        self._sending = asyncio.create_task(self._send_on(send), name="stream-send")
        leaving = asyncio.create_task(_disconnected(receive), name="stream-receive")
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

    async def _send_on(self, send: Send) -> None:
        while True:
            while self._waiting:
                await self._send_some(send)
            if self._ending:
                await send(_body(b"", more=False))
                return
            self._wake.clear()
            await self._wake.wait()

    async def _send_some(self, send: Send) -> None:
        sheets = [self._waiting.popleft()]
        size = sheets[0].size
        while self._waiting and size + self._waiting[0].size <= JOIN_BYTES:
            sheets.append(self._waiting.popleft())
            size += sheets[-1].size
        await send(_body(sheets[0].text if len(sheets) == 1 else b"".join(sheet.text for sheet in sheets), more=True))
        self._size -= size
        if self.is_busy and self._size <= LOW_BYTES:
            self.is_busy = False
            self._reader.became_ready()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _body(body: bytes, *, more: bool) -> Mapping[str, Any]:
    message: MutableMapping[str, Any] = {"type": "http.response.body", "body": body, "more_body": more}
    return message
