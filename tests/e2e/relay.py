"""A port that leads to another one, whose connections can be cut: what a network does to processes."""

import asyncio
from typing import Self, cast


class Relay:
    """`async with Relay(5432) as relay`: whoever connects to `relay.port` has reached 5432, until it is cut.

    While it is held nothing comes through, and nobody is told.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._ends: set[_End] = set()
        self._reaching: set[asyncio.Task[None]] = set()
        self._is_free = asyncio.Event()
        self._is_free.set()
        self.port = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _End(self), "127.0.0.1", 0)
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
        transports = [end.transport for end in self._ends]
        for transport in transports:
            transport.abort()
        return len(transports)

    def hold(self) -> None:
        self._is_free.clear()
        for end in self._ends:
            end.transport.pause_reading()

    def let_go(self) -> None:
        self._is_free.set()
        for end in self._ends:
            if end.other is not None:
                end.transport.resume_reading()

    def joined(self, end: "_End") -> None:
        self._ends.add(end)
        if end.other is None:
            task = asyncio.create_task(self._reach(end))
            self._reaching.add(task)
            task.add_done_callback(self._reaching.discard)

    def left(self, end: "_End") -> None:
        self._ends.discard(end)

    async def _reach(self, near: "_End") -> None:
        near.transport.pause_reading()
        await self._is_free.wait()
        if near.transport.is_closing():
            return
        far = _End(self, other=near)
        try:
            await asyncio.get_running_loop().create_connection(lambda: far, "127.0.0.1", self._target)
        except OSError:
            near.transport.abort()
            return
        near.other = far
        if near.transport.is_closing():
            far.transport.close()
        elif self._is_free.is_set():
            near.transport.resume_reading()
        else:
            far.transport.pause_reading()


class _End(asyncio.Protocol):
    """One end of a connection: what comes in here goes out at the other."""

    transport: asyncio.Transport

    def __init__(self, relay: Relay, *, other: "_End | None" = None) -> None:
        self._relay = relay
        self.other = other
        """None: it is yet to be reached."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._relay.joined(self)

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.transport.write(data)

    def connection_lost(self, _: Exception | None) -> None:
        self._relay.left(self)
        if self.other is not None:
            self.other.transport.close()
