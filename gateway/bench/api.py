"""The gateway's HTTP API, as far as a benchmark asks it for anything but its speed."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx

from gateway.bench.crew import Target
from gateway.bench.errors import BenchError
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
                counts = await self._stats(one)
                if counts["delivered"] + counts["dead"] >= events:
                    break
                if time.monotonic() > deadline:
                    raise BenchError(f"not settled after {patience:.0f} s: {counts}")
                await asyncio.sleep(SETTLED_EVERY_SECONDS)
            dead += counts["dead"]
        return time.monotonic(), dead

    async def owed(self, subscriptions: Sequence[str], events: int, *, patience: float) -> tuple[float, list[int]]:
        """When each of *subscriptions* was owed *events*, and how many are owed to each then; they are paused."""
        found = list[int]()
        deadline = time.monotonic() + patience
        for one in subscriptions:
            while True:
                count = (await self._stats(one))["pending"]
                if count >= events or time.monotonic() > deadline:
                    break
                await asyncio.sleep(SETTLED_EVERY_SECONDS)
            found.append(count)
        return time.monotonic(), found

    async def pause(self, subscriptions: Sequence[str]) -> None:
        for one in subscriptions:
            await self._call("POST", f"/v1/subscriptions/{one}/pause")

    async def delivered(self, deliveries: int, *, patience: float) -> float:
        """When the gateway has settled so many *deliveries* since it started, by its own count, which costs it nothing.

        Raises:
            BenchError: not after *patience* seconds.
        """
        deadline = time.monotonic() + patience
        while (count := await self.total_delivered()) < deliveries:
            if time.monotonic() > deadline:
                raise BenchError(f"{count} deliveries settled of {deliveries} after {patience:.0f} s")
            await asyncio.sleep(SETTLED_EVERY_SECONDS)
        return time.monotonic()

    async def total_delivered(self) -> int:
        """Since the gateway's process started."""
        return int((await self._call("GET", "/v1/events/stats"))["total_delivered"])

    async def head(self) -> str:
        """The cursor of the newest event; empty if there is none."""
        newest = (await self._call("GET", "/v1/events", params={"page_size": "1"}))["data"]
        return str(newest[0]["cursor"]) if newest else ""

    async def accepted_after(self, cursor: str) -> str:
        """When the first event after *cursor* was accepted."""
        query = {"after": cursor, "order": "asc", "page_size": "1"}
        return str((await self._call("GET", "/v1/events", params=query))["data"][0]["accepted_at"])

    async def logged(self, library: str, events: int, *, after: str = "") -> tuple[Numbers, int]:
        """Which numbers the log has of *library* after a cursor, and how many are there more than once."""
        numbers = list[int]()
        query = {"library_id": library, "order": "asc", "page_size": str(PAGE_SIZE)}
        if after:
            query["after"] = after
        while True:
            answer = await self._answer("GET", "/v1/events", params=query)
            numbers += [number for number, _ in marks_in(answer.content)]
            if (token := answer.json()["next_page_token"]) is None:
                return numbers_in(numbers, events), len(numbers) - len(set(numbers))
            query["page_token"] = token

    async def _stats(self, subscription: str) -> dict[str, int]:
        counts: dict[str, int] = (await self._call("GET", f"/v1/subscriptions/{subscription}/stats"))["counts"]
        return counts

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
