"""A reader of a WebSocket stream, over the client of `websockets`."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response
from websockets.typing import Origin

from tests.http.served import Served

PATH = "/v1/events/ws"
Message = dict[str, Any]


class SocketReader:
    """What has come, message by message; it reads only when it is told to."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.texts: list[str] = []
        self.messages: list[Message] = []

    @property
    def numbers(self) -> list[int]:
        return [message["data"]["n"] for message in self.messages if message["type"] == "event"]

    @property
    def places(self) -> list[str]:
        return [message["cursor"] for message in self.messages if message["type"] == "event"]

    async def read(self) -> Message:
        text = await self.connection.recv()
        assert isinstance(text, str), "messages are text"
        self.texts.append(text)
        message: Message = json.loads(text)
        self.messages.append(message)
        return message

    async def until(self, condition: Callable[[Message], bool]) -> Message:
        """The first message from here on of which *condition* holds."""
        async with asyncio.timeout(10):
            while not condition(message := await self.read()):
                pass
        return message

    async def until_events(self, count: int) -> None:
        seen = len(self.places)
        async with asyncio.timeout(20):
            while seen < count:
                seen += (await self.read())["type"] == "event"

    async def until_cursor(self, cursor: str) -> None:
        await self.until(lambda message: message["cursor"] == cursor)

    async def code(self) -> int:
        """The code that it is closed with, after whatever else comes; 1006 if there was none."""
        async with asyncio.timeout(20):
            while True:
                try:
                    await self.read()
                except ConnectionClosed as closed:
                    return 1006 if closed.rcvd is None else closed.rcvd.code


@asynccontextmanager
async def opened(
    port: int, path: str = PATH, *, secret: str | None = None, origin: Origin | None = None, **options: Any
) -> AsyncIterator[SocketReader]:
    """A WebSocket over a small window that does not grow, so that a reader who does not read is felt soon and surely.

    Raises:
        InvalidStatus: the handshake was refused.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    options = {"max_queue": 4, "ping_interval": None, "close_timeout": 0.5, **options}
    async with connect(
        f"ws://gateway.test{path}", sock=sock, additional_headers=headers, origin=origin, proxy=None, **options
    ) as connection:
        yield SocketReader(connection)


@asynccontextmanager
async def listening(served: Served, path: str = PATH, **options: Any) -> AsyncIterator[SocketReader]:
    """A reader of *served*, with a key of its own unless it brings credentials."""
    if "secret" not in options and "token=" not in path:
        options["secret"] = await served.key()
    async with opened(served.port, path, **options) as reader:
        yield reader


async def refused(served: Served, path: str = PATH, **options: Any) -> Response:
    """The response to a handshake that is not granted."""
    try:
        async with listening(served, path, **options):
            raise AssertionError("it was granted")
    except InvalidStatus as error:
        return error.response
