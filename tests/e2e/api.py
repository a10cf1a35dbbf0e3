"""The gateway's HTTP API as the tests call it, with the admin key."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from typing import Any

import httpx

from tests.e2e.processes import ADMIN_KEY, GatewayProcess

Json = dict[str, Any]
PAGE_SIZE = 500
_WHO = {"authorization": f"Bearer {ADMIN_KEY}"}


class Api:
    """Each method answers the body, once the status is one of success."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def call(self, method: str, path: str, body: object = None, **query: str) -> Any:
        answer = await self.client.request(method, path, json=body, params=query)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def publish(self, event: Json) -> str:
        """The id of *event*."""
        receipt: Json = await self.call("POST", "/v1/events", event)
        return str(receipt["id"])

    async def publish_all(self, events: Iterable[Json]) -> list[str]:
        """The ids of *events*, which are accepted together."""
        receipts: Json = await self.call("POST", "/v1/events", list(events))
        return [str(receipt["id"]) for receipt in receipts["data"]]

    async def subscribe(self, url: str, **fields: object) -> Json:
        subscription: Json = await self.call("POST", "/v1/subscriptions", {"url": url, **fields})
        return subscription

    async def deliveries(self, **query: str) -> list[Json]:
        return await self._all("/v1/deliveries", query)

    async def delivery(self, **query: str) -> Json:
        """The one delivery that *query* finds, with its attempts."""
        [found] = await self.deliveries(**query)
        whole: Json = await self.call("GET", f"/v1/deliveries/{found['id']}")
        return whole

    async def events(self, **query: str) -> list[Json]:
        """Those in the log, oldest first."""
        return await self._all("/v1/events", {"order": "asc", **query})

    async def _all(self, path: str, query: dict[str, str]) -> list[Json]:
        rows: list[Json] = []
        query = {**query, "page_size": str(PAGE_SIZE)}
        while True:
            page = await self.call("GET", path, **query)
            rows += page["data"]
            if page["next_page_token"] is None:
                return rows
            query["page_token"] = page["next_page_token"]


@asynccontextmanager
async def api_of(gateway: GatewayProcess) -> AsyncIterator[Api]:
    async with client_of(gateway) as client:
        yield Api(client)


def client_of(gateway: GatewayProcess, *, connections: int = 100, patience_seconds: float = 30) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=gateway.url,
        headers=_WHO,
        trust_env=False,
        timeout=httpx.Timeout(patience_seconds),
        limits=httpx.Limits(max_connections=connections),
    )


def roaming_client(gateways: Sequence[GatewayProcess], *, patience_seconds: float = 30) -> httpx.AsyncClient:
    """Each of its requests goes to another of *gateways* than the one before."""
    return httpx.AsyncClient(
        transport=_InTurn([httpx.URL(gateway.url) for gateway in gateways]),
        base_url=gateways[0].url,
        headers=_WHO,
        timeout=httpx.Timeout(patience_seconds),
    )


class _InTurn(httpx.AsyncBaseTransport):
    def __init__(self, urls: Sequence[httpx.URL]) -> None:
        self._turns = cycle(urls)
        self._transport = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = next(self._turns)
        request.url = request.url.copy_with(host=url.host, port=url.port)
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        await self._transport.aclose()
