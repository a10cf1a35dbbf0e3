"""`kill -9`, again and again, with a zoo of receivers behind the gateway: the books balance, and each order is kept.

Unlike the receivers of test_ledger.py these break off, reset, hang, drip and lie, at random. They live in this process,
so that what they got and what they said is known to the byte.

`GATEWAY_TEST_SEED=…` repeats a run's random choices (not the machine's timing).
"""

import asyncio
import base64
import os
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from tests.e2e.api import Api, Json, api_of, client_of
from tests.e2e.ledger import LIBRARIES, Ledger, Matches, PublisherTask, check_deliveries, check_order
from tests.e2e.processes import GatewayProcess, Workshop
from tests.e2e.receiver import Post
from tests.e2e.waiting import eventually_answered
from tests.sending.animals import DRIP_SECONDS
from tests.sending.receivers import Caller, receiving

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

SEED = int(os.environ.get("GATEWAY_TEST_SEED") or random.SystemRandom().randrange(10**6))
KILLS = 5
PUBLISHERS = 3
PAUSE_SECONDS = 0.3
TIMEOUT_SECONDS = 0.4
STUCK_SECONDS = 3_600.0


@dataclass(kw_only=True)
class Beast:
    """A receiver that does whatever comes to its mind, *wildness* of the time; else it answers 204."""

    rand: random.Random
    wildness: float
    always_refuses: frozenset[str] = frozenset()
    """Libraries whose events are always answered 500."""
    posts: list[Post] = field(default_factory=list)
    moods: list[str] = field(default_factory=list)
    """In which each was received."""
    _bag: list[str] = field(default_factory=list)

    async def behave(self, caller: Caller) -> None:
        while request := await caller.request():
            mood = self._next_mood() if self.rand.random() < self.wildness else "kind"
            post = _post_of(request)
            if any(f'"library_id":"{library}"'.encode() in post.body for library in self.always_refuses):
                mood = "500"
            self.moods.append(mood)
            status, answer = MOODS.get(mood, (204, b"HTTP/1.1 204 No Content\r\n\r\n"))
            self.posts.append(_answered(post, status))
            if not await _say(caller, mood, answer):
                return

    def _next_mood(self) -> str:
        """One out of a bag that holds each once, so that none is left out in a short life."""
        if not self._bag:
            self._bag = self.rand.sample(sorted(MOODS), len(MOODS))
        return self._bag.pop()


MOODS: dict[str, tuple[int | None, bytes]] = {
    "500": (500, b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"),
    "302": (302, b"HTTP/1.1 302 Moved\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n"),
    "garbage": (None, b"\x16\x03\x01 what?\r\n\r\n"),
    "resets": (None, b""),
    "closes": (None, b""),
    "cut within its head": (None, b"HTTP/1.1 200 OK\r\nx-a"),
    "silent": (None, b""),
    "drips its head": (None, b"HTTP/1.1 200 OK\r\n" + b"x-drip: a\r\n" * 100),
    "200 then resets": (200, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    "200 and half a body": (200, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"),
    "1xx first": (200, b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    "closes when idle": (204, b"HTTP/1.1 204 No Content\r\n\r\n"),
}


async def _say(caller: Caller, mood: str, answer: bytes) -> bool:
    """Answer as the mood is; whether the connection is still good."""
    match mood:
        case "silent":
            await caller.gone()
        case "drips its head":
            for start in range(0, len(answer), 10):
                await caller.say(answer[start : start + 10])
                await asyncio.sleep(DRIP_SECONDS)
        case _:
            await caller.say(answer)
    if mood in {"resets", "200 then resets"}:
        caller.reset()
    return mood in {"kind", "500", "302", "1xx first"}


def _post_of(request: bytes) -> Post:
    head, _, body = request.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    return Post(
        at=time.monotonic(),
        path="",
        headers={name.lower(): value for name, value in headers.items()},
        body_base64=base64.b64encode(body).decode(),
        status=None,
    )


def _answered(post: Post, status: int | None) -> Post:
    return Post(at=post.at, path=post.path, headers=post.headers, body_base64=post.body_base64, status=status)


@dataclass(frozen=True, kw_only=True)
class Plan:
    wildness: float
    fields: dict[str, object]
    matches: Matches = lambda _: True
    refused: frozenset[str] = frozenset()


PLANS = {
    "wild": Plan(wildness=0.4, fields={"retry_schedule": [0.1] * 30}),
    "wild and given up": Plan(wildness=0.6, fields={"retry_schedule": [0.05], "max_in_flight": 4}),
    "ordered": Plan(
        wildness=0.5,
        fields={"ordering": "library", "retry_schedule": [0.05], "max_in_flight": 8},
        matches=lambda event: event["type"].startswith("document."),
    ),
    "stuck": Plan(
        wildness=0.2,
        fields={"ordering": "library", "retry_schedule": [0.05] * 12 + [STUCK_SECONDS], "max_in_flight": 8},
        matches=lambda event: event["type"] == "document.added",
        refused=frozenset({LIBRARIES[0]}),
    ),
}
TYPES: dict[str, list[str]] = {"ordered": ["document.*"], "stuck": ["document.added"]}


async def test_the_books_balance_and_every_order_is_kept_with_a_zoo_behind_it(workshop: Workshop) -> None:
    rand = random.Random(SEED)
    print(f"GATEWAY_TEST_SEED={SEED}")  # noqa: T201 - shown with -s, and when the test fails
    gateway = workshop.gateway()
    ledger = Ledger()
    beasts = {
        name: Beast(rand=random.Random(rand.random()), wildness=plan.wildness, always_refuses=plan.refused)
        for name, plan in PLANS.items()
    }
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(api_of(gateway))
        subscriptions = {}
        for name, beast in beasts.items():
            receiver = await stack.enter_async_context(receiving(beast.behave))
            made = await api.subscribe(
                receiver.url(), types=TYPES.get(name, ["custom", "search.performed", "document.*"]),
                timeout_seconds=TIMEOUT_SECONDS, **PLANS[name].fields,
            )  # fmt: skip
            subscriptions[name] = str(made["id"])
        await _publish_and_kill(gateway, ledger, rand)
        logged = await api.events()
        ledger.check_log(logged)
        for name in ("wild", "wild and given up", "ordered"):
            deliveries = await _settled(api, subscriptions[name], sum(map(PLANS[name].matches, logged)))
            check_deliveries(deliveries, beasts[name].posts, logged, PLANS[name].matches)
            if name == "ordered":
                came = check_order(deliveries, beasts[name].posts, logged, PLANS[name].matches)
                assert {delivery["status"] for delivery in deliveries} == {"delivered", "dead"}
                assert sum(map(len, came.values())) == len(deliveries)
        await _check_stuck(api, subscriptions["stuck"], beasts["stuck"].posts, logged)
    assert set(MOODS) <= set(beasts["wild"].moods), "it was in every mood"


async def _publish_and_kill(gateway: GatewayProcess, ledger: Ledger, rand: random.Random) -> None:
    stop = asyncio.Event()
    async with client_of(gateway) as client, asyncio.TaskGroup() as tasks:
        for number in range(PUBLISHERS):
            publisher = PublisherTask(number, client, ledger, random.Random(rand.random()))
            tasks.create_task(publisher.run(stop, PAUSE_SECONDS))
        for _ in range(KILLS):
            await asyncio.sleep(rand.uniform(0.3, 1.5))
            await asyncio.to_thread(gateway.kill)
            await asyncio.to_thread(gateway.start)
        stop.set()


async def _settled(api: Api, subscription_id: str, expected: int) -> list[Json]:
    async def look() -> list[Json] | None:
        found = await api.deliveries(subscription_id=subscription_id)
        pending = any(delivery["status"] == "pending" for delivery in found)
        return found if len(found) >= expected and not pending else None

    return await eventually_answered(look, "all of it is settled", within=60, every=0.25)


async def _check_stuck(api: Api, subscription_id: str, posts: Sequence[Post], logged: list[Json]) -> None:
    """One library waits for an hour behind its first event; the others are through."""
    plan = PLANS["stuck"]

    async def look() -> list[Json] | None:
        found = await api.deliveries(subscription_id=subscription_id)
        left = [one for one in found if one["status"] == "pending" and one["library_id"] not in plan.refused]
        return None if left or len(found) < sum(map(plan.matches, logged)) else found

    deliveries = await eventually_answered(look, "the other libraries flow on", within=60, every=0.25)
    came = check_order(deliveries, posts, logged, plan.matches)
    [blocked] = plan.refused
    assert len(came[blocked]) == 1
    waiting = [one for one in deliveries if one["library_id"] == blocked]
    assert len(waiting) > 1
    assert {one["status"] for one in waiting} == {"pending"}
    assert sorted(one["attempt_count"] for one in waiting)[:-1] == [0] * (len(waiting) - 1)
    for library in LIBRARIES[1:]:
        expected = [event["id"] for event in logged if plan.matches(event) and event["library_id"] == library]
        assert came[library] == expected
