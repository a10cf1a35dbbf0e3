"""Serve a baseline's app on uvicorn, beside the conversation with who started it."""

import asyncio
from contextlib import suppress
from socket import socket
from typing import Any

import uvicorn


class BaselineServer(uvicorn.Server):
    """`listen` answers the port. It is served until the process ends."""

    def __init__(self, app: Any) -> None:  # noqa: ANN401 - Litestar's and uvicorn's ASGI types differ in name only
        super().__init__(
            uvicorn.Config(app, host="127.0.0.1", port=0, access_log=False, log_level="warning", backlog=16_384)
        )
        self._listening = asyncio.Event()

    async def listen(self) -> dict[str, Any]:
        self._serving = asyncio.create_task(self._until_the_end())
        await self._listening.wait()
        return {"port": self.servers[0].sockets[0].getsockname()[1]}

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening.set()

    async def _until_the_end(self) -> None:
        with suppress(asyncio.CancelledError):
            await self.serve()
