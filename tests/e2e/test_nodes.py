"""Several gateways on one PostgreSQL share the sending: whatever becomes of one of them, its lanes go on elsewhere."""

import asyncio
import re
import signal
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.e2e.api import Api, Json, api_of
from tests.e2e.processes import GatewayProcess, Workshop
from tests.e2e.receiver import Behaviour, Post
from tests.e2e.receivers import ReceiverProcess, receiver
from tests.e2e.waiting import eventually, eventually_answered
from tests.servers.postgres import PostgresServer, postgres_server
from webhooks.ownership import LEASE_SECONDS

pytestmark = pytest.mark.chaos

TIMEOUT_SECONDS = 2


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


class Cluster:
    """Gateways that share a database, and a receiver."""

    def __init__(self, workshop: Workshop, url: str) -> None:
        self._workshop = workshop
        self._url = url
        self.receiver: ReceiverProcess = receiver(workshop)
        self.gateways: list[GatewayProcess] = []

    def add(self, *flags: str) -> GatewayProcess:
        gateway = self._workshop.unstarted_gateway({"DATABASE_URL": self._url}, name=f"gateway_{len(self.gateways)}")
        gateway.command = [*gateway.command, *flags]
        self.gateways.append(gateway)
        return gateway.start()

    def senders(self) -> dict[str, int]:
        """How many attempts each has made."""
        return {gateway.name: gateway.output.count("delivery.attempted") for gateway in self.gateways}


@pytest.fixture
def cluster(server: PostgresServer, workshop: Workshop) -> Cluster:
    return Cluster(workshop, server.create())


def _event(number: int, library: str = "acme") -> Json:
    return {"type": "custom", "library_id": library, "id": f"{library}:{number}", "data": {}}


async def _subscribe(api: Api, cluster: Cluster, count: int, **fields: object) -> list[str]:
    """The paths of so many subscriptions, each with a library of its own."""
    made = [f"/hooks/{number}" for number in range(count)]
    for number, path in enumerate(made):
        wanted = {"library_ids": [f"lib{number}"], "timeout_seconds": TIMEOUT_SECONDS, "retry_schedule": [1] * 20}
        await api.subscribe(cluster.receiver.url + path, **(wanted | fields))
    return made


async def _publish(api: Api, count: int, *, libraries: int, first: int = 0) -> None:
    await api.publish_all(
        _event(number, f"lib{library}") for number in range(first, first + count) for library in range(libraries)
    )


async def _all_received(cluster: Cluster, count: int, *, libraries: int, within: float = 30) -> None:
    wanted = {f"lib{library}:{number}" for library in range(libraries) for number in range(count)}
    await eventually(lambda: wanted <= {post.event_id for post in cluster.receiver.posts()}, "all", within=within)


def _repeated(posts: list[Post]) -> list[str]:
    ids = [post.event_id for post in posts]
    return sorted({id_ for id_ in ids if ids.count(id_) > 1})


async def test_a_process_that_is_added_takes_its_share_and_nothing_is_sent_twice(cluster: Cluster) -> None:
    async with api_of(cluster.add()) as api:
        await _subscribe(api, cluster, 8)
        await _publish(api, 5, libraries=8)
        await _all_received(cluster, 5, libraries=8)
        cluster.add()
        before, round_ = cluster.senders()["gateway_0"], 5

        async def other_sends_its_share() -> bool:
            nonlocal round_
            await _publish(api, 1, libraries=8, first=round_)
            round_ += 1
            return cluster.senders()["gateway_1"] >= 12

        await eventually_answered(other_sends_its_share, "the other sends", every=0.3)
        await _all_received(cluster, round_, libraries=8)
        assert cluster.senders()["gateway_0"] > before
        await eventually(lambda: sum(cluster.senders().values()) == 8 * round_, "each is sent once")
    assert _repeated(cluster.receiver.posts()) == []


async def test_after_sigterm_others_go_on_at_once_and_nothing_is_sent_twice(cluster: Cluster) -> None:
    for number in range(6):
        cluster.receiver.behave(f"/hooks/{number}", Behaviour(slow_seconds=0.3))
    first, second = cluster.add(), cluster.add()
    async with api_of(second) as api:
        paths = await _subscribe(api, cluster, 6, max_in_flight=1)
        await _publish(api, 60, libraries=6)
        await eventually(lambda: all(cluster.senders().values()), "both send")
        first.signal(signal.SIGTERM)
        assert await asyncio.to_thread(first.wait, 5) == 0
        await _all_received(cluster, 60, libraries=6)
        await eventually(lambda: sum(cluster.senders().values()) == 6 * 60, "each is sent once")
    assert _repeated(cluster.receiver.posts()) == []
    for path in paths:
        assert _longest_gap(cluster.receiver.posts(path)) < 2


async def test_after_kill_others_go_on_when_the_lease_and_the_longest_attempt_are_over(cluster: Cluster) -> None:
    first, second = cluster.add(), cluster.add()
    async with api_of(second) as api:
        await _subscribe(api, cluster, 6, max_per_second=5, ordering="library")
        await _publish(api, 100, libraries=6)
        await eventually(lambda: all(cluster.senders().values()), "both send")
        first.kill()
        await _all_received(cluster, 100, libraries=6, within=TIMEOUT_SECONDS + 10 + 25)
    for path in (f"/hooks/{number}" for number in range(6)):
        posts = cluster.receiver.posts(path)
        assert _longest_gap(posts) < TIMEOUT_SECONDS + 10
        _check_pace(posts, 5)
        _check_order(posts)


async def test_a_process_that_was_stopped_for_longer_than_its_lease_sends_nothing_under_it(cluster: Cluster) -> None:
    first, second = cluster.add(), cluster.add()
    async with api_of(second) as api:
        paths = await _subscribe(api, cluster, 6, max_per_second=5, ordering="library")
        await _publish(api, 150, libraries=6)
        await eventually(lambda: all(cluster.senders().values()), "both send")
        assert "duty.begins" in first.output
        first.signal(signal.SIGSTOP)
        done = first.output
        in_turn = {path: len(cluster.receiver.posts(path)) for path in paths}
        await eventually(
            lambda: all(len(cluster.receiver.posts(path)) > in_turn[path] + 8 for path in paths),
            "the other has taken all lanes",
            within=LEASE_SECONDS + TIMEOUT_SECONDS + 10,
        )
        await api.subscribe(cluster.receiver.url + "/hooks/new", library_ids=["new"])
        await api.publish(_event(1, "new"))
        await eventually(lambda: cluster.receiver.posts("/hooks/new"), "the other makes deliveries, too")
        continued_at = time.monotonic()
        first.signal(signal.SIGCONT)
        await eventually(lambda: "node.joined" in first.output[len(done) :], "it begins anew")
        woken = first.output[len(done) :]
        assert woken.index("node.lease_lapsed") < woken.index("node.joined")
        under_it = woken[: woken.index("node.joined")]
        # What it was in the middle of has taken as long as it slept; it has begun nothing since.
        assert all(float(ms) > 1000 * LEASE_SECONDS for ms in re.findall(r"duration_ms=([\d.]+)", under_it))
        await _all_received(cluster, 150, libraries=6, within=60)
    for path in paths:
        posts = cluster.receiver.posts(path)
        # What it had in mind the other has sent long since.
        before = {post.event_id for post in posts if post.at <= continued_at}
        assert not [post for post in posts if post.at > continued_at and post.event_id in before]
        _check_pace(posts, 5)
        _check_order(posts)


async def test_each_process_does_what_its_roles_are_for(cluster: Cluster) -> None:
    api_only, sender = cluster.add("--roles", "api"), cluster.add("--roles", "dispatch")
    cluster.receiver.behave("/hooks/0", Behaviour(status=500))
    async with api_of(api_only) as api, api_of(sender) as other:
        await _subscribe(api, cluster, 1, retry_schedule=[3600])
        await _publish(api, 3, libraries=1)
        await _all_received(cluster, 3, libraries=1)
        assert (await other.client.get("/v1/events")).status_code == 404
        assert (await api.client.get("/v1/events/stream")).status_code == 404
        [first, *_] = await api.deliveries()
        cluster.receiver.behave("/hooks/0", Behaviour(status=204))
        await api.call("POST", f"/v1/deliveries/{first['id']}/retry")
        await eventually(lambda: len(cluster.receiver.posts()) == 4, "what was asked for here is sent there", within=5)
        [subscription] = (await api.call("GET", "/v1/subscriptions"))["data"]
        attempt = await api.call("POST", f"/v1/subscriptions/{subscription['id']}/test")
        assert attempt["status_code"] == 204
    assert "delivery.attempted" in sender.output
    assert not any(words in api_only.output for words in ("delivery.attempted", "node.joined", "duty.begins"))


def _longest_gap(posts: list[Post]) -> float:
    return max(later.at - earlier.at for earlier, later in pairwise(posts))


def _check_pace(posts: list[Post], per_second: float) -> None:
    """No closer than the rate allows; the wire, and a timer that fires late, may move each by some milliseconds."""
    closest = min(later.at - earlier.at for earlier, later in pairwise(posts))
    assert closest > 1 / per_second - 0.1, closest


def _check_order(posts: list[Post]) -> None:
    """By first receipt."""
    first = list(dict.fromkeys(post.event_id for post in posts))
    assert first == sorted(first, key=lambda id_: int(id_.split(":")[1]))
