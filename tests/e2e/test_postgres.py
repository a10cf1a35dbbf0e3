"""The gateway on PostgreSQL: what it promises on a file it promises here, whoever of the two is killed."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.api import Api, Json, api_of, client_of
from tests.e2e.processes import Workshop
from tests.e2e.receiver import Behaviour
from tests.e2e.receivers import receiver
from tests.e2e.streams import StreamReader
from tests.e2e.test_stopping import EXIT_SECONDS
from tests.e2e.waiting import eventually, eventually_answered
from tests.servers.nats import nats_server
from tests.servers.postgres import PostgresServer, postgres_server
from tests.storage.sessions import is_waited_for, session


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> str:
    return server.create()


@pytest.fixture(params=["memory", "postgres", "nats"])
def bus(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param != "nats":
        yield f"{request.param}://"
        return
    with nats_server(tmp_path) as server:
        yield server.url


def _event(id_: str) -> Json:
    return {"type": "custom", "library_id": "acme", "id": id_, "data": {"text": "naïve"}}


async def _publish_until_taken(api: Api, id_: str) -> None:
    async def taken() -> bool:
        return (await api.client.post("/v1/events", json=_event(id_))).is_success

    await eventually_answered(taken, f"{id_} is taken")


async def _all_delivered(api: Api, ids: list[str]) -> None:
    async def delivered() -> bool:
        found = await api.deliveries(status="delivered")
        return sorted(delivery["event_id"] for delivery in found) == sorted(ids)

    await eventually_answered(delivered, f"{ids} are delivered, once each")


@pytest.mark.chaos
async def test_a_gateway_that_is_killed_goes_on_where_it_was(url: str, workshop: Workshop) -> None:
    gateway, posts = workshop.gateway({"DATABASE_URL": url}), receiver(workshop)
    async with client_of(gateway) as client, StreamReader(client, "/v1/events/stream") as stream:
        api = Api(client)
        await stream.opened.wait()
        await api.subscribe(posts.url + "/hooks", types=["custom"], timeout_seconds=1)
        await api.publish(_event("a"))
        gateway.kill()
        gateway.start()
        await _publish_until_taken(api, "b")
        await eventually(lambda: [one["id"] for one in stream.events] == ["a", "b"], "the stream has both, once")
        await _all_delivered(api, ["a", "b"])
    assert {post.event_id for post in posts.posts()} == {"a", "b"}


async def test_while_the_database_is_down_streams_stay_open_and_then_all_goes_on(
    server: PostgresServer, url: str, workshop: Workshop
) -> None:
    gateway, posts = workshop.gateway({"DATABASE_URL": url}), receiver(workshop)
    async with client_of(gateway) as client, StreamReader(client, "/v1/events/stream") as stream:
        api = Api(client)
        await stream.opened.wait()
        await api.subscribe(posts.url + "/hooks", types=["custom"])
        await api.publish(_event("before"))
        await asyncio.to_thread(server.kill)
        refused = await client.post("/v1/events", json=_event("meanwhile"))
        assert refused.status_code == 503
        assert refused.json()["type"] == "/problems/overloaded"
        assert int(refused.headers["retry-after"]) > 0
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.get("/health/live")).status_code == 200
        await asyncio.to_thread(server.start)
        await _publish_until_taken(api, "after")
        await eventually(lambda: [one["id"] for one in stream.events] == ["before", "after"], "the stream goes on")
        assert stream.connections == 1
        assert [event["id"] for event in await api.events()] == ["before", "after"]
        await _all_delivered(api, ["before", "after"])
    assert gateway.is_up


async def test_a_gateway_that_is_told_to_end_while_another_holds_the_log_ends_in_time_and_says_come_again(
    url: str, workshop: Workshop
) -> None:
    gateway, posts = workshop.gateway({"DATABASE_URL": url}), receiver(workshop)
    async with client_of(gateway) as client, session(url) as other:
        api = Api(client)
        await api.subscribe(posts.behave("/hooks", Behaviour(silent=True)))
        await api.publish(_event("before"))
        await eventually(posts.posts, "an attempt is in flight")
        await other.execute("BEGIN; SELECT FROM log FOR UPDATE")
        publishing = [asyncio.create_task(client.post("/v1/events", json=_event(id_))) for id_ in ("a", "b", "c")]
        await is_waited_for(url)
        gateway.signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.wait, EXIT_SECONDS) == 0
        for answer in await asyncio.gather(*publishing):
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
    assert "Traceback" not in gateway.output


@pytest.mark.chaos
async def test_two_processes_share_a_log_and_what_one_owned_the_other_sends_when_it_is_killed(
    url: str, bus: str, workshop: Workshop
) -> None:
    one = workshop.gateway({"DATABASE_URL": url, "BUS_URL": bus}, name="one")
    other = workshop.gateway({"DATABASE_URL": url, "BUS_URL": bus}, name="other")
    posts = receiver(workshop)
    async with client_of(other) as client, StreamReader(client, "/v1/events/stream", type="custom") as stream:
        await stream.opened.wait()
        async with api_of(one) as first:
            await first.subscribe(posts.url + "/hooks", types=["custom"], timeout_seconds=1)
            await first.publish(_event("a"))
            await _all_delivered(first, ["a"])
        await eventually(lambda: [event["id"] for event in stream.events] == ["a"], "the other's readers see it")
        one.kill()
        api = Api(client)
        await api.publish(_event("b"))
        await _all_delivered(api, ["a", "b"])
    assert [post.event_id for post in posts.posts()] == ["a", "b"]
