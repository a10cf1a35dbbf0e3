"""The gateway's HTTP API, as far as a benchmark asks it for anything but its speed."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx

from gateway.bench.crew import BenchError, Target
from gateway.bench.ledger import Numbers, numbers_in
from gateway.bench.marks import marks_in

PAGE_SIZE = 500
SETTLED_EVERY_SECONDS = 0.01


class Api:
    def __init__(self, target: Target) -> None:
        self._client = httpx.AsyncClient(
            base_url=target.url, headers={"authorization": f"Bearer {target.key}"}, trust_env=False, timeout=60
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def subscribed(self, urls: Sequence[str], library: str, *, in_flight: int) -> AsyncIterator[list[str]]:
        """The ids of a subscription for each of *urls*, which are deleted at the end."""
        ids = list[str]()
        for url in urls:
            wanted = {"url": url, "library_ids": [library], "max_in_flight": in_flight}
            ids.append((await self._call("POST", "/v1/subscriptions", json=wanted))["id"])
        yield ids
        for one in ids:
            await self._call("DELETE", f"/v1/subscriptions/{one}")

    async def settled(self, subscriptions: Sequence[str], events: int, *, patience: float) -> tuple[float, int]:
        """When each of *subscriptions* had *events* delivered or dead, and how many are dead, once that is so.

        Raises:
            BenchError: not after *patience* seconds.
        """
        deadline = time.monotonic() + patience
        dead = 0
        for one in subscriptions:
            while True:
                counts = (await self._call("GET", f"/v1/subscriptions/{one}/stats"))["counts"]
                if counts["delivered"] + counts["dead"] >= events:
                    break
                if time.monotonic() > deadline:
                    raise BenchError(f"not settled after {patience:.0f} s: {counts}")
                await asyncio.sleep(SETTLED_EVERY_SECONDS)
            dead += counts["dead"]
        return time.monotonic(), dead

    async def logged(self, library: str, events: int) -> tuple[Numbers, int]:
        """Which numbers the log has of *library*, and how many are there more than once."""
        numbers = list[int]()
        query = {"library_id": library, "order": "asc", "page_size": str(PAGE_SIZE)}
        while True:
            answer = await self._answer("GET", "/v1/events", params=query)
            numbers += [number for number, _ in marks_in(answer.content)]
            if (token := answer.json()["next_page_token"]) is None:
                return numbers_in(numbers, events), len(numbers) - len(set(numbers))
            query["page_token"] = token

    async def _call(self, method: str, path: str, **request: Any) -> Any:  # noqa: ANN401 - httpx's own, and JSON
        answer = await self._answer(method, path, **request)
        return answer.json() if answer.content else None

    async def _answer(self, method: str, path: str, **request: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        try:
            answer = await self._client.request(method, path, **request)
        except httpx.HTTPError as error:
            raise BenchError(f"{method} {path}: {error!r}") from error
        if not answer.is_success:
            raise BenchError(f"{method} {path} was answered {answer.status_code}: {answer.text[:500]}")
        return answer
