"""Names for receivers on loopback: a table, and name servers that know nothing or say nothing."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import AsyncResolver

from webhooks.resolver import DeadlineResolver


class Names(AbstractResolver):
    """Answers from a table: each time the next list of a name's addresses, the last one for ever."""

    def __init__(self, **names: list[list[str]]) -> None:
        self._names = {name.replace("_", "."): addresses for name, addresses in names.items()}
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked += 1
        answers = self._names[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in addresses
        ]

    async def close(self) -> None:
        return


class Directory(AbstractResolver):
    """Asks for each name the resolver that knows it; *others* for the rest."""

    def __init__(self, known: Mapping[str, AbstractResolver], others: AbstractResolver) -> None:
        self._known = known
        self._others = others

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return await self._known.get(host, self._others).resolve(host, port, family)

    async def close(self) -> None:
        for resolver in (*self._known.values(), self._others):
            await resolver.close()


class NameServer(asyncio.DatagramProtocol):
    """Answers every question with *code* (3: no such name), or not at all."""

    def __init__(self, code: int | None) -> None:
        self._code = code
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._code is not None and self._transport is not None:
            question = data[12 : data.index(b"\0", 12) + 5]
            counts = data[4:6] + bytes(6)
            self._transport.sendto(data[:2] + bytes([0x81, 0x80 | self._code]) + counts + question, addr)


@asynccontextmanager
async def name_server(code: int | None, *, deadline_seconds: float = 0.2) -> AsyncIterator[DeadlineResolver]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: NameServer(code), ("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    inner = AsyncResolver(nameservers=["127.0.0.1"], udp_port=port, tcp_port=port, timeout=2, tries=1)
    try:
        yield DeadlineResolver(inner, deadline_seconds=deadline_seconds)
    finally:
        transport.close()
