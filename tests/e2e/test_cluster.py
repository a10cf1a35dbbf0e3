"""Three gateways on PostgreSQL and NATS, whatever befalls them: and then the books are balanced.

 publishers ──▶ gateway_0 (all roles) ───▶ relays ──▶ PostgreSQL, NATS
 streams ─────▶ gateway_1 (all roles) ───▶ relays ──▶
                gateway_2 (api, stream) ─▶ relays ──▶          gateway_0, gateway_1 ──▶ receiver

`GATEWAY_TEST_SEED=…` repeats a run's random choices (not the machine's timing).
"""

import asyncio
import os
import random
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.api import Api, Json, client_of, roaming_client
from tests.e2e.ledger import LIBRARIES, Ledger, Matches, PublisherTask, check_deliveries, check_order, check_stream
from tests.e2e.limits import check_pace, is_late, most_at_once
from tests.e2e.processes import GatewayProcess, Workshop
from tests.e2e.receiver import Behaviour, Post
from tests.e2e.receivers import ReceiverProcess, receiver
from tests.e2e.relay import Relay
from tests.e2e.streams import RestlessReader, StreamReader
from tests.e2e.trouble import Member, Trouble
from tests.e2e.waiting import eventually, eventually_answered
from tests.servers.nats import NatsServer, nats_server
from tests.servers.postgres import PostgresServer, postgres_server
from webhooks.ownership import LEASE_SECONDS

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(200)]

SEED = int(os.environ.get("GATEWAY_TEST_SEED") or random.SystemRandom().randrange(10**6))
ROLES = (None, None, "api,stream")
TIMEOUT_SECONDS = 2
PUBLISHERS_EACH = 2
PAUSE_SECONDS = 0.8
PATIENCE_SECONDS = 5.0
SLACK_SECONDS = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A subscription, and what its receiver does."""

    matches: Matches
    fields: dict[str, object]
    behaviour: Behaviour = field(default_factory=Behaviour)


MOST_AT_ONCE = 3
PER_SECOND = 8.0
PLANS = {
    "/all": Plan(matches=lambda _: True, fields={}),
    "/flaky": Plan(
        matches=lambda event: event["library_id"] != LIBRARIES[0],
        behaviour=Behaviour(failing=0.3, slow_seconds=0.02, seed=SEED),
        fields={"library_ids": list(LIBRARIES[1:])},
    ),
    "/ordered": Plan(
        matches=lambda event: event["type"].startswith("document."),
        behaviour=Behaviour(failing=0.1, seed=SEED + 1),
        fields={"types": ["document.*"], "ordering": "library"},
    ),
    "/ordered-slowly": Plan(
        matches=lambda event: event["type"] == "custom",
        behaviour=Behaviour(slow_seconds=0.05, seed=SEED + 2),
        fields={"types": ["custom"], "ordering": "library"},
    ),
    "/few-at-once": Plan(
        matches=lambda event: event["type"] == "search.performed",
        behaviour=Behaviour(slow_seconds=0.3, seed=SEED + 3),
        fields={"types": ["search.performed"], "max_in_flight": MOST_AT_ONCE},
    ),
    "/paced": Plan(
        matches=lambda event: (event["type"], event["library_id"]) == ("custom", LIBRARIES[0]),
        behaviour=Behaviour(failing=0.1, seed=SEED + 4),
        fields={"types": ["custom"], "library_ids": [LIBRARIES[0]], "max_per_second": PER_SECOND},
    ),
}
STREAM = "/v1/events/stream"
BRANCH = "document.*"
STAY_SECONDS = 3.0


@dataclass(slots=True, kw_only=True)
class Readers:
    """Streams: one of all events and one of a branch on each gateway, and one that comes back to another each time."""

    all: list[StreamReader]
    branch: list[StreamReader]
    roaming: StreamReader


@pytest.fixture
def postgres_of_its_own() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    with nats_server(tmp_path) as server:
        yield server


@pytest.fixture
async def members(
    workshop: Workshop, postgres_of_its_own: PostgresServer, nats: NatsServer
) -> AsyncIterator[list[Member]]:
    database = (await asyncio.to_thread(postgres_of_its_own.create)).rpartition("/")[2]
    async with AsyncExitStack() as stack:
        made: list[Member] = []
        for number, roles in enumerate(ROLES):
            relays = [await stack.enter_async_context(Relay(port)) for port in (postgres_of_its_own.port, nats.port)]
            settings = {
                "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{relays[0].port}/{database}",
                "BUS_URL": f"nats://127.0.0.1:{relays[1].port}",
                "RETRY_SCHEDULE": str([0.1] * 30),
                "STREAM_HEARTBEAT_SECONDS": "0.5",
            }
            gateway = workshop.unstarted_gateway(settings, name=f"gateway_{number}")
            if roles is not None:
                gateway.command = [*gateway.command, "--roles", roles]
            made.append(Member(gateway=gateway, relays=relays, sends=roles is None))
        await asyncio.gather(*[asyncio.to_thread(member.gateway.start) for member in made])
        yield made
        # They are killed before their relays close: nobody has to say goodbye to anybody.
        for member in made:
            member.gateway.close()


async def test_nothing_is_lost_and_no_promise_broken_whatever_befalls_a_cluster(
    workshop: Workshop, members: list[Member], postgres_of_its_own: PostgresServer, nats: NatsServer
) -> None:
    rand = random.Random(SEED)
    _tell(f"GATEWAY_TEST_SEED={SEED}")
    gateways = [member.gateway for member in members]
    posts, ledger = receiver(workshop), Ledger()
    longest = LEASE_SECONDS + TIMEOUT_SECONDS
    trouble = Trouble(members, postgres_of_its_own, nats, rand=rand, away_seconds=(longest + 0.5, longest + 2.5))
    async with client_of(gateways[2]) as client:
        api = Api(client)
        subscriptions = {path: await _subscribe(api, posts, path) for path in PLANS}
        async with _reading(gateways) as readers:
            async with _publishing(gateways, ledger, rand):
                try:
                    await trouble.run()
                finally:
                    _tell("\n".join(trouble.diary))
            logged = await api.events()
            _tell(f"{len(logged)} logged, {len(ledger.accepted)} accepted, {ledger.unanswered} not answered")
            ledger.check_log(logged)
            assert ledger.unanswered, "something happened while events were published"
            await _check_streams(readers, logged)
        for path, id_ in subscriptions.items():
            deliveries, came = await _settled(api, id_, logged, path), posts.posts(path)
            repeated = len(came) - len({post.event_id for post in came if _is_taken(post)})
            _tell(f"{path}: {len(deliveries)} deliveries, {len(came)} requests, {repeated} beyond one each")
            assert {delivery["status"] for delivery in deliveries} == {"delivered"}
            check_deliveries(deliveries, came, logged, PLANS[path].matches, unsent=_slept_through(members))
            if PLANS[path].fields.get("ordering") == "library":
                check_order(deliveries, came, logged, PLANS[path].matches)
        await _check_repeated_ids(api, ledger)
    _check_absent(members, posts.posts())
    check_pace(posts.posts("/paced"), PER_SECOND, slack_seconds=SLACK_SECONDS)
    assert most_at_once(posts.posts("/few-at-once")) == MOST_AT_ONCE


def _tell(text: str) -> None:
    """Shown with -s, and when the test fails."""
    print(text)  # noqa: T201 - that is what it is for


async def _subscribe(api: Api, posts: ReceiverProcess, path: str) -> str:
    plan = PLANS[path]
    url = await asyncio.to_thread(posts.behave, path, plan.behaviour)
    made = await api.subscribe(url, timeout_seconds=TIMEOUT_SECONDS, **plan.fields)
    return str(made["id"])


@asynccontextmanager
async def _reading(gateways: Sequence[GatewayProcess]) -> AsyncIterator[Readers]:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(gateway)) for gateway in gateways]
        roaming = await stack.enter_async_context(roaming_client(gateways))
        readers = Readers(
            all=[StreamReader(client, STREAM) for client in clients],
            branch=[StreamReader(client, STREAM, type=BRANCH) for client in clients],
            roaming=RestlessReader(roaming, STREAM, stay_seconds=STAY_SECONDS),
        )
        for each in (*readers.all, *readers.branch, readers.roaming):
            await stack.enter_async_context(each)
        for each in (*readers.all, *readers.branch, readers.roaming):
            await asyncio.wait_for(each.opened.wait(), 10)
        yield readers


@asynccontextmanager
async def _publishing(gateways: Sequence[GatewayProcess], ledger: Ledger, rand: random.Random) -> AsyncIterator[None]:
    """Some on each gateway, and some that go to another one with whatever was not answered."""
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        clients = [client_of(gateway, patience_seconds=PATIENCE_SECONDS) for gateway in gateways]
        clients.append(roaming_client(gateways, patience_seconds=PATIENCE_SECONDS))
        for client in clients:
            await stack.enter_async_context(client)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        for number, client in enumerate(clients * PUBLISHERS_EACH):
            publisher = PublisherTask(number, client, ledger, random.Random(rand.random()))
            tasks.create_task(publisher.run(stop, PAUSE_SECONDS))
        yield
        stop.set()


async def _check_streams(readers: Readers, logged: list[Json]) -> None:
    """Each event once, in the log's order, on each gateway and from one to the other."""
    of_branch = PLANS["/ordered"].matches
    expected = [(each, of_branch) for each in readers.branch]
    expected += [(each, PLANS["/all"].matches) for each in (*readers.all, readers.roaming)]
    for reader, matches in expected:
        last = [event["cursor"] for event in logged if matches(event)][-1]
        await eventually(lambda: reader.messages and reader.messages[-1].last_event_id == last, "it has caught up")  # noqa: B023 - asked at once
        check_stream(reader.messages, logged, matches)
    assert readers.roaming.connections > len(readers.all), "it has been everywhere"


async def _settled(api: Api, subscription_id: str, logged: list[Json], path: str) -> list[Json]:
    """All deliveries of a subscription, once none of them is pending."""
    expected = sum(map(PLANS[path].matches, logged))

    async def look() -> list[Json] | None:
        if await api.deliveries(subscription_id=subscription_id, status="pending"):
            return None
        found = await api.deliveries(subscription_id=subscription_id)
        return found if len(found) >= expected else None

    return await eventually_answered(look, f"all of {path} is settled", within=60, every=0.5)


async def _check_repeated_ids(api: Api, ledger: Ledger) -> None:
    """What was accepted under an id of the publisher's own can be published again, and nothing is new."""
    own = [slip for event_id, slip in ledger.accepted.items() if event_id.startswith("own:")][:500]
    answer = await api.client.post("/v1/events", json=[ledger.attempted[slip] for slip in own])
    assert answer.status_code == 200
    assert all(receipt["duplicate"] for receipt in answer.json()["data"])


def _check_absent(members: Sequence[Member], posts: Sequence[Post]) -> None:
    """Whoever was away past its lease found that out, and sent nothing further under it."""
    back = [said for member in members for said in member.back]
    assert all("node.lease_lapsed" in said for said in back), "each has noticed, before it began anew"
    late = [post for post in posts if is_late(post, within_seconds=TIMEOUT_SECONDS + SLACK_SECONDS)]
    _tell(f"{len(back)} were away past their leases, {len(late)} requests went out late")
    assert late == []


def _slept_through(members: Sequence[Member]) -> set[str]:
    """Deliveries whose attempts have ended in a sleep."""
    return {
        id_ for member in members for said in member.back for id_ in re.findall(r"delivery=(\S+) .* status= ", said)
    }


def _is_taken(post: Post) -> bool:
    return post.status is not None and 200 <= post.status < 300
