"""A gateway that no longer does its work says so, to those who restart it."""

from pathlib import Path
from typing import Any

import httpx

from gateway.app import Gateway
from gateway.settings import Settings


async def test_it_is_not_ready_once_its_dispatcher_has_ended_by_itself(tmp_path: Path) -> None:
    gateway = Gateway(Settings(database_url=f"sqlite:///{tmp_path}/gateway.db"))
    app: Any = gateway.app  # Litestar and httpx type ASGI each in their own way
    transport = httpx.ASGITransport(app)
    async with gateway.running(), httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert (await client.get("/health/ready")).status_code == 200
        await gateway._dispatcher.drain()
        await gateway._dispatching
        answer = await client.get("/health/ready")
    assert answer.status_code == 503
    assert "restart" in answer.json()["detail"]
