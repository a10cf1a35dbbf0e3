"""The whole gateway in this process, on a database of its own: called as over HTTP, sending over real sockets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.app import Gateway
from gateway.settings import Settings
from tests.e2e.api import Api
from tests.e2e.processes import ADMIN_KEY
from webhooks.transport import VettingTransport

LOCAL = ["127.0.0.0/8"]


@asynccontextmanager
async def a_gateway(
    directory: Path, *, transport: VettingTransport | None = None, **settings: Any
) -> AsyncIterator[Api]:
    """One that is running; *settings* by their fields. It may be ended and started again in the same *directory*."""
    chosen = {
        "database_url": f"sqlite:///{directory}/gateway.db",
        "admin_key": ADMIN_KEY,
        "destination_allow": LOCAL,
        **settings,
    }
    gateway = Gateway(Settings.model_validate(chosen), transport=transport)
    async with (
        gateway.running(),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(gateway.app),  # type: ignore[arg-type]  # Litestar's ASGI types differ in name
            base_url="http://gateway.test",
            headers={"authorization": f"Bearer {ADMIN_KEY}"},
        ) as client,
    ):
        yield Api(client)
