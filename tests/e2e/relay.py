"""A port that leads to another one, whose connections can be cut: what a network does to processes."""

import asyncio
from typing import Self, cast


class Relay:
    """`async with Relay(5432) as relay`: whoever connects to `relay.port` has reached 5432, until it is cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._ends: set[_End] = set()
        self._reaching: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Near(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in self._reaching:
            task.cancel()
        await self._server.wait_closed()

    def cut(self) -> int:
        """Reset all connections at once; how many ends that were."""
        ends = list(self._ends)
        for end in ends:
            end.transport.abort()
        return len(ends)

    def joined(self, end: "_End") -> None:
        self._ends.add(end)

    def left(self, end: "_End") -> None:
        self._ends.discard(end)

    def reach(self, near: "_Near") -> None:
        task = asyncio.create_task(self._reach(near))
        self._reaching.add(task)
        task.add_done_callback(self._reaching.discard)

    async def _reach(self, near: "_Near") -> None:
        near.transport.pause_reading()
        far = _End(self)
        far.other, near.other = near, far
        try:
            await asyncio.get_running_loop().create_connection(lambda: far, "127.0.0.1", self._target)
        except OSError:
            near.transport.abort()
            return
        if near.transport.is_closing():
            far.transport.close()
        else:
            near.transport.resume_reading()


class _End(asyncio.Protocol):
    """One end of a connection: what comes in here goes out at the other."""

    transport: asyncio.Transport
    other: "_End"

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._relay.joined(self)

    def data_received(self, data: bytes) -> None:
        self.other.transport.write(data)

    def connection_lost(self, _: Exception | None) -> None:
        self._relay.left(self)
        if hasattr(self.other, "transport"):
            self.other.transport.close()


class _Near(_End):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._relay.reach(self)
