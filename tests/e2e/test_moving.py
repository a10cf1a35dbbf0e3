"""A gateway that changes its database: moved to PostgreSQL, or put back from a backup. No loss is silent."""

import asyncio
import json
import shutil
import signal
import subprocess

import pytest

from tests.e2e.api import Api, Json, client_of
from tests.e2e.processes import COMMAND, GatewayProcess, Workshop
from tests.e2e.receiver import Behaviour
from tests.e2e.receivers import ReceiverProcess, receiver
from tests.e2e.streams import StreamReader
from tests.e2e.waiting import eventually, eventually_answered
from tests.servers.postgres import PostgresServer

EXIT_SECONDS = 5.0


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.create()


def _event(id_: str) -> Json:
    return {"type": "custom", "library_id": "acme", "id": id_, "data": {"text": "naïve"}}


async def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run, [COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


async def _stop(gateway: GatewayProcess) -> None:
    gateway.signal(signal.SIGTERM)
    assert await asyncio.to_thread(gateway.wait, EXIT_SECONDS) == 0


async def _delivered(api: Api, ids: list[str]) -> None:
    async def all_of_them() -> bool:
        found = await api.deliveries(status="delivered")
        return sorted({delivery["event_id"] for delivery in found}) == sorted(ids)

    await eventually_answered(all_of_them, f"{ids} are delivered")


async def _refused(workshop: Workshop, database_url: str, name: str) -> str:
    gateway = workshop.unstarted_gateway({"DATABASE_URL": database_url}, name=name)
    gateway.spawn()
    assert await asyncio.to_thread(gateway.wait, 30) == 1
    return gateway.output


async def _owe(api: Api, posts: ReceiverProcess, *ids: str) -> None:
    """Events whose deliveries fail at first, and are due again at once."""
    posts.behave("/hooks", Behaviour(status=500))
    await api.publish_all(map(_event, ids))
    await eventually(lambda: {post.event_id for post in posts.posts()} >= set(ids), "each was tried")


@pytest.mark.chaos
async def test_streams_and_deliveries_go_on_across_a_copy_to_postgres(url: str, workshop: Workshop) -> None:
    posts = receiver(workshop)
    settings = {"RETRY_SCHEDULE": json.dumps([1] * 20), "SECRET_KEY": '["a passphrase of some length"]'}
    old = workshop.gateway(settings)
    new = workshop.unstarted_gateway({**settings, "DATABASE_URL": url}, name="new", port=old.port)
    async with client_of(old) as client, StreamReader(client, "/v1/events/stream") as stream:
        api = Api(client)
        await stream.opened.wait()
        await api.subscribe(posts.url + "/hooks", types=["custom"])
        await _owe(api, posts, "a", "b")
        refused = await _run("copy", f"sqlite:///{old.database}", url)
        assert (refused.returncode, "in use" in refused.stderr) == (1, True), refused
        await _stop(old)
        copied = await _run("copy", f"sqlite:///{old.database}", url)
        assert copied.returncode == 0, copied.stderr
        assert "counting what has arrived" in copied.stdout
        said = await _refused(workshop, f"sqlite:///{old.database}", "again")
        assert f"This database has moved to {url}" in said
        assert len(said.splitlines()) == 1
        posts.behave("/hooks", Behaviour())
        await asyncio.to_thread(new.start)
        await api.publish(_event("c"))
        await eventually(lambda: len(stream.events) >= 3, "the stream goes on")
        assert [message.type for message in stream.messages] == ["custom"] * 3, "with its old cursor, and no gap"
        assert [event["id"] for event in stream.events] == ["a", "b", "c"]
        await _delivered(api, ["a", "b", "c"])
    assert {post.event_id for post in posts.posts()} == {"a", "b", "c"}


@pytest.mark.chaos
async def test_after_a_restore_a_stream_is_told_of_the_gap_and_what_is_owed_is_sent(workshop: Workshop) -> None:
    posts = receiver(workshop)
    gateway = workshop.gateway({"RETRY_SCHEDULE": json.dumps([1] * 20)})
    backup = gateway.database.with_name("backup.db")
    async with client_of(gateway) as client:
        api, back = Api(client), StreamReader(client, "/v1/events/stream")
        async with StreamReader(client, "/v1/events/stream") as stream:
            await stream.opened.wait()
            await api.subscribe(posts.url + "/hooks", types=["custom"])
            await api.publish(_event("a"))
            await _delivered(api, ["a"])
            await _owe(api, posts, "b")
            await _stop(gateway)
            await asyncio.to_thread(shutil.copy, gateway.database, backup)

            posts.behave("/hooks", Behaviour())
            await asyncio.to_thread(gateway.start)
            await api.publish_all([_event("lost"), _event("lost_too")])
            await _delivered(api, ["a", "b", "lost", "lost_too"])
            await eventually(lambda: len(stream.events) == 4, "the stream has all of them")
        back.last_event_id = stream.last_event_id
        served = await _run("restored", f"sqlite:///{gateway.database}")
        assert (served.returncode, "in use" in served.stderr) == (1, True), served
        await _stop(gateway)
        for end in ("", "-wal", "-shm"):
            gateway.database.with_name(gateway.database.name + end).unlink(missing_ok=True)
        await asyncio.to_thread(shutil.copy, backup, gateway.database)
        done = await _run("restored", f"sqlite:///{gateway.database}")
        assert done.returncode == 0, done.stderr
        assert "1 deliveries are owed" in done.stdout

        await asyncio.to_thread(gateway.start)
        await api.publish_all([_event("c"), _event("d"), _event("e")])  # in the places of those that are lost
        async with back:
            await eventually(lambda: len(back.messages) == 6, "the stream goes on")
            assert [message.type for message in back.messages] == ["gateway.gap"] + ["custom"] * 5
            assert [event["id"] for event in back.events[1:]] == ["a", "b", "c", "d", "e"]
        await _delivered(api, ["a", "b", "c", "d", "e"])
    sent = [post.event_id for post in posts.posts() if post.status == 204]
    assert sorted(sent) == sorted(["a", "b", "b", "c", "d", "e", "lost", "lost_too"]), "again only what was owed"
