"""Two hundred subscriptions, most of them in trouble: what the healthy ones notice of it."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.e2e.api import api_of
from tests.e2e.processes import ADMIN_KEY, GatewayProcess, Workshop
from tests.e2e.receiver import Behaviour
from tests.e2e.receivers import ReceiverProcess, receiver
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

HEALTHY = 99
HANGING = 50
FAILING = 50
BACKLOG = 100_000
EVENTS_A_SECOND = 40
MEASURED_SECONDS = 8
BATCH = 1_000
ANSWER_SECONDS = 0.1
"""A receiver that works: with eight at a time the backlog leaves at some 160 a second."""


Publish = Callable[[object], Coroutine[Any, Any, None]]


async def test_healthy_subscriptions_are_served_beside_hanging_failing_and_flooded_ones(workshop: Workshop) -> None:
    gateway = workshop.gateway()
    posts, others = receiver(workshop, name="healthy"), receiver(workshop, name="others")
    async with api_of(gateway) as api, _publishing(gateway) as publish:
        for number in range(HEALTHY):
            await api.subscribe(f"{posts.url}/healthy/{number}", library_ids=[f"healthy-{number}"])
        await _latencies(publish, posts, "warm-up", sick=[])
        alone = await _latencies(publish, posts, "alone", sick=[])

        flooded = await api.subscribe(
            others.behave("/flooded", Behaviour(slow_seconds=ANSWER_SECONDS)), library_ids=["flooded"]
        )
        await api.call("POST", f"/v1/subscriptions/{flooded['id']}/pause")
        for start in range(0, BACKLOG, BATCH):
            await api.call("POST", "/v1/events", [_event("flooded", n=start + each) for each in range(BATCH)])
        sick = [f"hanging-{number}" for number in range(HANGING)] + [f"failing-{number}" for number in range(FAILING)]
        for library in sick:
            url = others.behave(f"/{library}", Behaviour(silent=library.startswith("hanging"), status=500))
            await api.subscribe(url, library_ids=[library])
        await _latencies(publish, posts, "caught up", sick=[])  # in the order of the log: the backlog is owed by now
        await api.call("POST", f"/v1/subscriptions/{flooded['id']}/resume")
        await eventually(lambda: others.posts("/flooded"), "the backlog leaves")
        beside = await _latencies(publish, posts, "beside", sick=sick)

        # The others were there all the time, and were served as far as they can be.
        reached = {post.path for post in others.posts()}
        assert reached >= {f"/{library}" for library in sick}
        sent = len(others.posts("/flooded"))
        assert 0 < sent < BACKLOG
    print(f"alone: {_words(alone)}")  # noqa: T201 - shown with -s
    print(f"beside 50 hanging, 50 failing, one of {BACKLOG:,} ({sent:,} sent): {_words(beside)}")  # noqa: T201
    print(f"p99 ratio: {_p99(beside) / _p99(alone):.2f}")  # noqa: T201 - a noisy machine must not fail the build


@asynccontextmanager
async def _publishing(gateway: GatewayProcess) -> AsyncIterator[Publish]:
    """By a client that takes little of the processor: it shares it with the gateway, and is not what is measured."""
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    async with aiohttp.ClientSession(gateway.url, headers=headers) as session:

        async def publish(event: object) -> None:
            async with session.post("/v1/events", json=event) as answer:
                assert answer.status == 202, await answer.text()

        yield publish


async def _latencies(publish: Publish, posts: ReceiverProcess, name: str, *, sick: Sequence[str]) -> list[float]:
    """Seconds from when each event was due to be published until its receiver had it, published at an even rate.

    Each event for a healthy one is accompanied by one for a *sick* one.
    """
    started = time.monotonic()
    due: dict[str, float] = {}
    async with asyncio.TaskGroup() as group:
        for number in range(EVENTS_A_SECOND * MEASURED_SECONDS):
            at = started + number / EVENTS_A_SECOND
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            event = {**_event(f"healthy-{number % HEALTHY}"), "id": f"{name.replace(' ', '-')}:{number}"}
            due[str(event["id"])] = at
            group.create_task(publish(event))
            if sick:
                group.create_task(publish(_event(sick[number % len(sick)])))

    def arrived() -> dict[str, float] | None:
        got = {post.event_id: post.at for post in posts.posts() if post.event_id in due}
        return got if len(got) == len(due) else None

    got = await eventually(arrived, "each has arrived")
    assert len([post for post in posts.posts() if post.event_id in due]) == len(due), "once each"
    return [got[event_id] - at for event_id, at in due.items()]


def _event(library: str, **data: object) -> dict[str, object]:
    return {"type": "document.added", "library_id": library, "data": data}


def _p99(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=100)[-1]


def _words(seconds: Sequence[float]) -> str:
    return f"median {statistics.median(seconds) * 1e3:.1f} ms, p99 {_p99(seconds) * 1e3:.1f} ms"
