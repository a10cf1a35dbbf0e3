"""`gateway serve --workers`: several processes behind one port, of which any may die."""

import asyncio
import re
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.api import Json, api_of, client_of
from tests.e2e.processes import COMMAND, GatewayProcess, Workshop
from tests.e2e.receiver import Behaviour
from tests.e2e.receivers import receiver
from tests.e2e.streams import Parser
from tests.e2e.test_stopping import EXIT_SECONDS, KEY, LAST_CHUNK, RawStream, _open_stream
from tests.e2e.waiting import eventually, eventually_answered
from tests.servers.postgres import PostgresServer

WORKERS = 2
MORE_SECONDS = 1.0
"""What a supervisor may take beside its workers."""


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.create()


def _unstarted(workshop: Workshop, settings: Mapping[str, str], *, port: int | None = None) -> GatewayProcess:
    gateway = workshop.unstarted_gateway(settings, port=port)
    gateway.command = [COMMAND, "serve", "--workers", str(WORKERS)]
    return gateway


async def _started(workshop: Workshop, url: str) -> GatewayProcess:
    """All of its workers take connections."""
    gateway = await asyncio.to_thread(_unstarted(workshop, {"DATABASE_URL": url}).start)
    await eventually(lambda: len(_ready(gateway)) == WORKERS, "all workers are up")
    return gateway


def _workers(gateway: GatewayProcess) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(gateway.child.pid).children()
    return found


def _ready(gateway: GatewayProcess) -> list[psutil.Process]:
    """Those that take connections."""
    pids = set(map(int, re.findall(r"event=worker\.ready .*pid=(\d+)", gateway.output)))
    return [worker for worker in _workers(gateway) if worker.pid in pids]


@contextmanager
def _only(gateway: GatewayProcess, worker: psutil.Process) -> Iterator[None]:
    """Meanwhile no other takes connections."""
    others = [one for one in _workers(gateway) if one.pid != worker.pid]
    for other in others:
        other.suspend()
    try:
        yield
    finally:
        for other in others:
            other.resume()


def _event(number: int) -> Json:
    return {"type": "custom", "library_id": "acme", "id": f"e{number}", "data": {}}


@pytest.mark.chaos
async def test_one_that_is_killed_is_replaced_and_meanwhile_the_others_answer(workshop: Workshop, url: str) -> None:
    gateway = await _started(workshop, url)
    first = _workers(gateway)
    taken: list[str] = []
    broken: list[int] = []
    over = asyncio.Event()

    async def publish() -> None:
        number = 0
        while not over.is_set():
            number += 1
            try:  # over a connection of its own, which any worker may take
                async with client_of(gateway) as client:
                    answer = await client.post("/v1/events", json=_event(number))
            except httpx.TransportError:
                broken.append(number)
                continue
            assert answer.status_code == 202, answer.text
            taken.append(f"e{number}")

    publishing = asyncio.create_task(publish())
    await eventually(lambda: len(taken) > 20, "events are taken")
    killed, so_far = first[0], len(taken)
    killed.kill()
    await eventually(lambda: len(taken) > so_far + 20, "events are taken all the while")
    fresh = await eventually(
        lambda: {one.pid for one in _ready(gateway)} - {one.pid for one in first}, "another is there"
    )
    assert len(fresh) == 1
    over.set()
    await publishing
    assert len(broken) <= 1, "no more than what the killed one had in hand"
    async with api_of(gateway) as api:
        assert {event["id"] for event in await api.events()} >= set(taken)
        [newest] = [one for one in _workers(gateway) if one.pid in fresh]
        with _only(gateway, newest):

            async def answers() -> bool:
                async with client_of(gateway) as client:
                    return (await client.get("/health/ready")).is_success

            await eventually_answered(answers, "the new one answers")
    assert "worker.ended" in gateway.output
    gateway.signal(signal.SIGTERM)
    assert await asyncio.to_thread(gateway.wait, EXIT_SECONDS + MORE_SECONDS) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_all_drain_and_streams_on_each_end_cleanly(workshop: Workshop, url: str, number: signal.Signals) -> None:
    gateway = await _started(workshop, url)
    streams: list[RawStream] = []
    for worker in _workers(gateway):
        with _only(gateway, worker):
            streams += [await asyncio.wait_for(_open_stream(gateway), 10) for _ in range(3)]
    async with api_of(gateway) as api:
        event_id = await api.publish(_event(1))
    await asyncio.gather(*(_read_until(stream, event_id.encode()) for stream in streams))
    ends = [asyncio.create_task(stream.read_to_end()) for stream in streams]
    workers = _workers(gateway)
    gateway.signal(number)
    assert await asyncio.to_thread(gateway.wait, EXIT_SECONDS + MORE_SECONDS) == 0
    await asyncio.wait_for(asyncio.gather(*ends), EXIT_SECONDS)
    for stream in streams:
        stream.writer.close()
        assert stream.rest.endswith(LAST_CHUNK), "the last chunk of a body that was not cut off"
        parser = Parser()
        list(parser.feed(stream.body))
        assert parser.retry_ms is not None
    assert not any(worker.is_running() for worker in workers)
    assert "Traceback" not in gateway.output


async def _read_until(stream: RawStream, text: bytes) -> None:
    """A stream may hear of what another process was given a moment later."""
    await asyncio.wait_for(stream.reader.readuntil(text), 10)
    await asyncio.wait_for(stream.reader.readuntil(b"\n\n\r\n"), 10)


async def test_a_second_signal_ends_hard(workshop: Workshop, url: str) -> None:
    posts = receiver(workshop)
    gateway = await _started(workshop, url)
    async with api_of(gateway) as api:
        await api.subscribe(posts.behave("/hooks", Behaviour(silent=True)))
        await api.publish(_event(1))
    await eventually(posts.posts, "an attempt is in flight, which gets 3 s")
    workers = _workers(gateway)
    gateway.signal(signal.SIGTERM)
    await eventually_answered(lambda: _refuses(gateway), "no more connections are taken")
    gateway.signal(signal.SIGTERM)
    assert await asyncio.to_thread(gateway.wait, 30) == 1, "a drain would have ended with 0"
    assert not any(worker.is_running() for worker in workers)


async def _refuses(gateway: GatewayProcess) -> bool:
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.get(f"{gateway.url}/health/live", timeout=1)
    except httpx.ConnectError:  # at once: nobody waits for a socket that nobody takes connections from
        return True
    except httpx.TransportError:
        pass
    return False


@pytest.mark.chaos
async def test_workers_whose_supervisor_is_killed_end_by_themselves(workshop: Workshop, url: str) -> None:
    gateway = await _started(workshop, url)
    workers = _workers(gateway)
    gateway.kill()
    await eventually(
        lambda: not any(worker.is_running() for worker in workers), "they are gone", within=EXIT_SECONDS + MORE_SECONDS
    )


async def test_the_banner_and_the_first_key_are_printed_once(workshop: Workshop, url: str) -> None:
    gateway = _unstarted(workshop, {"DATABASE_URL": url, "ADMIN_KEY": ""}, port=0)
    gateway.spawn()
    here = re.compile(r"  API       (http://127\.0\.0\.1:\d+)/v1")
    found = await eventually(lambda: here.search(gateway.output), "the banner", within=30)
    await eventually(lambda: len(_ready(gateway)) == WORKERS, "all workers are up", within=30)
    [key] = re.findall(KEY, gateway.output.split("Try it:")[0])
    async with httpx.AsyncClient(base_url=found[1], trust_env=False) as client:
        keys: Any = (await client.get("/v1/keys", headers={"authorization": f"Bearer {key}"})).json()
    assert len(keys["data"]) == 1
    gateway.signal(signal.SIGTERM)
    assert await asyncio.to_thread(gateway.wait, EXIT_SECONDS + MORE_SECONDS) == 0
    assert len(here.findall(gateway.output)) == 1
    assert f"{WORKERS} workers" in gateway.output


@pytest.mark.parametrize(
    ("settings", "status", "words"),
    [
        ({"DATABASE_URL": "sqlite:///gateway.db"}, 2, "GATEWAY_DATABASE_URL"),
        ({"BUS_URL": "memory://"}, 2, "GATEWAY_BUS_URL"),
        ({"DATABASE_URL": "postgresql://postgres@127.0.0.1:1/gateway"}, 1, "cannot be opened"),
    ],
)
def test_what_cannot_be_shared_stops_the_start_with_one_line(
    workshop: Workshop, url: str, settings: dict[str, str], status: int, words: str
) -> None:
    gateway = _unstarted(workshop, {"DATABASE_URL": url, **settings})
    gateway.spawn()
    assert gateway.wait(30) == status
    last = gateway.output.splitlines()[-1]
    assert last.startswith("gateway: ")
    assert words in last


def test_a_port_that_is_taken_stops_the_start_with_one_line(workshop: Workshop, url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gateway = _unstarted(workshop, {"DATABASE_URL": url}, port=port)
        gateway.spawn()
        assert gateway.wait(30) == 1
    [line] = gateway.output.splitlines()
    assert str(port) in line
