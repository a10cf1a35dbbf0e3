"""`kill -9`, again and again, while publishing, delivering and streaming: and then the books are balanced.

`GATEWAY_TEST_SEED=…` repeats a run's random choices (not the machine's timing).
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain

import httpx
import pytest

from tests.e2e.api import Api, Json, api_of, client_of
from tests.e2e.ledger import LIBRARIES, Ledger, Matches, PublisherTask, check_deliveries, check_order, check_stream
from tests.e2e.processes import GatewayProcess, Workshop
from tests.e2e.receiver import Behaviour
from tests.e2e.receivers import ReceiverProcess, receiver
from tests.e2e.streams import StreamReader
from tests.e2e.waiting import eventually, eventually_answered

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

SEED = int(os.environ.get("GATEWAY_TEST_SEED") or random.SystemRandom().randrange(10**6))
KILLS = 14
PUBLISHERS = 6
PAUSE_SECONDS = 0.05
DEAD_AFTER = [0.05, 0.1]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    matches: Matches
    query: dict[str, str] = field(default_factory=dict)
    path: str = "/v1/events/stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionPlan:
    matches: Matches
    behaviour: Behaviour = field(default_factory=Behaviour)
    fields: dict[str, object] = field(default_factory=dict)


STREAMS = {
    "all": StreamPlan(matches=lambda _: True),
    "all again, of the same channel": StreamPlan(matches=lambda _: True),
    "unnamed": StreamPlan(matches=lambda _: True, query={"named": "false"}),
    "a branch": StreamPlan(matches=lambda event: event["type"].startswith("document."), query={"type": "document.*"}),
    "one library": StreamPlan(
        matches=lambda event: event["library_id"] == LIBRARIES[2],
        path=f"/v1/libraries/{LIBRARIES[2]}/events/stream",
    ),
    "an expression": StreamPlan(
        matches=lambda event: event["data"]["priority"] == "high" and event["type"] != "custom",
        query={"filter": 'event.data.priority == "high" && event.type != "custom"'},
    ),
    "narrow": StreamPlan(
        matches=lambda event: (event["type"], event["library_id"]) == ("custom", LIBRARIES[0]),
        query={"type": "custom", "library_id": LIBRARIES[0]},
    ),
}
SUBSCRIPTIONS = {
    "/healthy": SubscriptionPlan(matches=lambda _: True),
    "/flaky": SubscriptionPlan(
        matches=lambda event: event["library_id"] != LIBRARIES[0],
        behaviour=Behaviour(failing=0.3, slow_seconds=0.02, seed=SEED),
        fields={"library_ids": list(LIBRARIES[1:]), "retry_schedule": [0.1] * 20},
    ),
    "/failing": SubscriptionPlan(
        matches=lambda event: event["type"] == "search.performed",
        behaviour=Behaviour(status=503, body="never"),
        fields={"types": ["search.performed"], "retry_schedule": DEAD_AFTER},
    ),
    "/filtered": SubscriptionPlan(
        matches=lambda event: event["library_id"] == LIBRARIES[1] and event["data"]["priority"] == "low",
        fields={"library_ids": [LIBRARIES[1]], "filter": 'event.data.priority == "low"'},
    ),
    "/ordered": SubscriptionPlan(
        matches=lambda event: event["type"].startswith("document.page."),
        behaviour=Behaviour(failing=0.2, seed=SEED + 1),
        fields={"types": ["document.page.*"], "ordering": "library", "retry_schedule": [0.05] * 20},
    ),
}


async def test_nothing_accepted_is_lost_and_nothing_is_streamed_twice_however_often_the_gateway_is_killed(
    workshop: Workshop,
) -> None:
    rand = random.Random(SEED)
    _tell(f"GATEWAY_TEST_SEED={SEED}")
    gateway = workshop.gateway({"STREAM_HEARTBEAT_SECONDS": "0.5"})
    posts = receiver(workshop)
    ledger = Ledger()
    async with api_of(gateway) as api, client_of(gateway) as stream_client:
        subscriptions = {path: await _subscribe(api, posts, path) for path in SUBSCRIPTIONS}
        async with _readers(stream_client, list(STREAMS.values())) as readers:
            async with _publishing(gateway, ledger, rand):
                for number in range(KILLS):
                    await _live_a_while_and_die(gateway, rand, until_ready=number % 3 != 2)
                await asyncio.to_thread(gateway.start)
            logged = await api.events()
            _tell(f"{len(logged)} logged, {len(ledger.accepted)} accepted, {ledger.unanswered} requests cut off")
            ledger.check_log(logged)
            assert ledger.unanswered, "the gateway was killed while it was being published to"
            for reader, plan in zip(readers, STREAMS.values(), strict=True):
                await _read_up_to_the_end(reader, logged, plan.matches)
            for reader, plan in zip(readers, STREAMS.values(), strict=True):
                check_stream(reader.messages, logged, plan.matches, named="named" not in plan.query)
                assert reader.connections > 1, "it was cut off, and came back"
        await _check_history_by_stream(stream_client, logged)
        deliveries = {path: await _settled(api, subscriptions[path], logged, path) for path in SUBSCRIPTIONS}
        for path, wanted in SUBSCRIPTIONS.items():
            came = posts.posts(path)
            _tell(f"{path}: {len(deliveries[path])} deliveries, {len(came)} requests")
            check_deliveries(deliveries[path], came, logged, wanted.matches)
        assert {delivery["status"] for delivery in deliveries["/healthy"]} == {"delivered"}
        assert {delivery["attempt_count"] for delivery in deliveries["/failing"]} == {len(DEAD_AFTER) + 1}
        check_order(deliveries["/ordered"], posts.posts("/ordered"), logged, SUBSCRIPTIONS["/ordered"].matches)
        await _check_notices(api, chain.from_iterable(deliveries.values()))
        await _check_repeated_ids(api, ledger)


def _tell(text: str) -> None:
    """Shown with -s, and when the test fails."""
    print(text)  # noqa: T201 - that is what it is for


async def _subscribe(api: Api, posts: ReceiverProcess, path: str) -> str:
    plan = SUBSCRIPTIONS[path]
    made = await api.subscribe(posts.behave(path, plan.behaviour), **plan.fields)
    return str(made["id"])


@asynccontextmanager
async def _readers(client: httpx.AsyncClient, plans: list[StreamPlan]) -> AsyncIterator[list[StreamReader]]:
    """Readers that have their place in the log."""
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(StreamReader(client, plan.path, **plan.query)) for plan in plans]
        for reader in readers:
            await asyncio.wait_for(reader.opened.wait(), 10)
        yield readers


@asynccontextmanager
async def _publishing(gateway: GatewayProcess, ledger: Ledger, rand: random.Random) -> AsyncIterator[None]:
    """Publishers at work. On leaving each has been answered for what it repeats."""
    stop = asyncio.Event()
    async with client_of(gateway) as client, asyncio.TaskGroup() as tasks:
        for number in range(PUBLISHERS):
            publisher = PublisherTask(number, client, ledger, random.Random(rand.random()))
            tasks.create_task(publisher.run(stop, PAUSE_SECONDS))
        yield
        stop.set()


async def _live_a_while_and_die(gateway: GatewayProcess, rand: random.Random, *, until_ready: bool) -> None:
    """Killed at work, or, not *until_ready*, while it may still be starting."""
    if not gateway.is_up:
        gateway.spawn()
    if until_ready:
        await asyncio.to_thread(gateway.wait_until_ready)
    await asyncio.sleep(rand.uniform(0.2, 3.0))
    await asyncio.to_thread(gateway.kill)


async def _read_up_to_the_end(reader: StreamReader, logged: list[Json], matches: Matches) -> None:
    last = [event["cursor"] for event in logged if matches(event)][-1]
    await eventually(
        lambda: reader.messages and reader.messages[-1].last_event_id == last, "the stream has caught up", within=20
    )


async def _check_history_by_stream(client: httpx.AsyncClient, logged: list[Json]) -> None:
    """One that comes only now, and asks for everything."""
    plan = StreamPlan(matches=lambda _: True, query={"since": "2020-01-01T00:00:00Z"})
    async with _readers(client, [plan]) as [reader]:
        await _read_up_to_the_end(reader, logged, plan.matches)
        check_stream(reader.messages, logged, plan.matches)


async def _settled(api: Api, subscription_id: str, logged: list[Json], path: str) -> list[Json]:
    """All deliveries of a subscription, once none of them is pending."""
    expected = sum(map(SUBSCRIPTIONS[path].matches, logged))

    async def look() -> list[Json] | None:
        if await api.deliveries(subscription_id=subscription_id, status="pending"):
            return None
        found = await api.deliveries(subscription_id=subscription_id)
        return found if len(found) >= expected else None

    return await eventually_answered(look, f"all of {path} is settled", within=60, every=0.5)


async def _check_notices(api: Api, deliveries: Iterable[Json]) -> None:
    """Each dead letter was told of, once."""
    dead = Counter(delivery["id"] for delivery in deliveries if delivery["status"] == "dead")
    told = Counter(notice["data"]["delivery_id"] for notice in await api.events(type="gateway.delivery.dead"))
    assert told == dead


async def _check_repeated_ids(api: Api, ledger: Ledger) -> None:
    """What was accepted under an id of the publisher's own can be published again, and nothing is new."""
    own = [slip for event_id, slip in ledger.accepted.items() if event_id.startswith("own:")][:500]
    answer = await api.client.post("/v1/events", json=[ledger.attempted[slip] for slip in own])
    assert answer.status_code == 200
    assert all(receipt["duplicate"] for receipt in answer.json()["data"])
