"""Very many streams at once, over bare sockets: what each is sent is counted, not kept."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.processes import ADMIN_KEY, GatewayProcess

OPENING_AT_ONCE = 200
KEPT_BYTES = 256
_HEAD = "GET {path} HTTP/1.1\r\nhost: gateway.test\r\nauthorization: Bearer {key}\r\n"
_HANDSHAKE = (
    "connection: Upgrade\r\nupgrade: websocket\r\n"
    "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n\r\n"
)
SSE = (_HEAD + "accept: text/event-stream\r\n\r\n", b"\nid: ")
WEBSOCKET = (_HEAD + _HANDSHAKE, b'"checkpoint"')
"""What to ask with, and what shows that the stream has begun: its place in the log."""


class Member(asyncio.Protocol):
    """One stream. It reads until told to stop."""

    def __init__(self, request: bytes, begun: bytes, mark: bytes) -> None:
        self._request = request
        self._begun = begun
        self._mark = mark
        self.marks = 0
        """How often *mark* has come."""
        self.tail = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.marks += (self.tail[1 - len(self._mark) :] + data).count(self._mark)
        self.tail = (self.tail + data)[-KEPT_BYTES:]
        if not self.opened.done() and self._begun in self.tail:
            self.opened.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        for each in (self.opened, self.ended):
            if not each.done():
                each.set_result(None)


class Crowd:
    """`await crowd.join(…)` opens more; `mark` is counted in all of them."""

    def __init__(self, gateway: GatewayProcess, mark: bytes) -> None:
        self.members: list[Member] = []
        self._gateway = gateway
        self._mark = mark

    async def join(self, count: int, kind: tuple[str, bytes], path: str) -> list[Member]:
        request, begun = kind
        head = request.format(path=path, key=ADMIN_KEY).encode()
        opening = asyncio.Semaphore(OPENING_AT_ONCE)
        loop = asyncio.get_running_loop()

        async def join_one() -> Member:
            async with opening:
                member: Member
                _, member = await loop.create_connection(
                    lambda: Member(head, begun, self._mark), "127.0.0.1", self._gateway.port
                )
                await member.opened
                assert not member.ended.done(), member.tail
                return member

        joined = await asyncio.gather(*(join_one() for _ in range(count)))
        self.members += joined
        return joined

    async def ends(self) -> None:
        await asyncio.gather(*(member.ended for member in self.members))

    def leave(self) -> None:
        for member in self.members:
            member.transport.abort()


@contextmanager
def many_open_files(needed: int) -> Iterator[bool]:
    """Take as many as this process may have meanwhile; False: that is not enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield hard == resource.RLIM_INFINITY or hard >= needed
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
