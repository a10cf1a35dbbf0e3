"""The baseline of deliveries: plain `httpx` that posts the same bodies to the same receiver, so many at a time."""

import asyncio
import time

import httpx

from gateway.bench.marks import event_json
from gateway.bench.roles.answering import Answer, answer_calls


async def send(*, url: str, events: int, in_flight: int, library: str, size: int) -> Answer:
    numbers = iter(range(events))
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    async with httpx.AsyncClient(limits=limits, trust_env=False, timeout=30) as client:

        async def post_some() -> None:
            for number in numbers:
                body = event_json(number, time.monotonic(), library, size)
                answer = await client.post(url, content=body, headers={"content-type": "application/json"})
                answer.raise_for_status()

        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(post_some())
        return {"seconds": time.monotonic() - began}


if __name__ == "__main__":
    answer_calls({"send": send})
