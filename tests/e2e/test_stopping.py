"""Stopping, starting, and refusing to start."""

import asyncio
import re
import signal
import subprocess
import time
from dataclasses import dataclass

import httpx
import pytest

from tests.e2e.api import api_of
from tests.e2e.processes import ADMIN_KEY, COMMAND, GatewayProcess, Workshop
from tests.e2e.receiver import Behaviour
from tests.e2e.receivers import receiver
from tests.e2e.streams import Parser
from tests.e2e.waiting import eventually, eventually_answered
from tests.servers.ports import free_port

STREAMS = 1_000
EXIT_SECONDS = 5.0
LAST_CHUNK = b"0\r\n\r\n"
KEY = re.compile(r"\barrw_[A-Za-z0-9_-]+")


@dataclass(slots=True)
class RawStream:
    """A stream over a bare socket, so that its very last bytes can be seen."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: bytes
    rest: bytes = b""

    async def read_to_end(self) -> None:
        self.rest = await self.reader.read()

    @property
    def body(self) -> bytes:
        """With the chunked coding taken off (RFC 9112, 7.1)."""
        body, rest = b"", self.rest
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            assert rest[length : length + 2] == b"\r\n", "each chunk has its end"
            body, rest = body + rest[:length], rest[length + 2 :]
        return body


async def _open_stream(gateway: GatewayProcess) -> RawStream:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        b"GET /v1/events/stream HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
        b"Authorization: Bearer %b\r\n\r\n" % ADMIN_KEY.encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    return RawStream(reader, writer, head)


async def _exit_status(gateway: GatewayProcess) -> int:
    return await asyncio.to_thread(gateway.wait, EXIT_SECONDS)


async def test_a_thousand_streams_get_a_retry_and_a_clean_end_and_the_process_exits_with_0(workshop: Workshop) -> None:
    gateway = workshop.gateway()
    async with api_of(gateway) as api:
        opening = asyncio.Semaphore(50)

        async def open_one() -> RawStream:
            async with opening:
                return await _open_stream(gateway)

        streams = await asyncio.gather(*(open_one() for _ in range(STREAMS)))
        event_id = await api.publish({"type": "custom", "library_id": "acme", "data": {}})
    ends = [asyncio.create_task(stream.read_to_end()) for stream in streams]
    gateway.signal(signal.SIGTERM)
    status = await _exit_status(gateway)
    await asyncio.wait_for(asyncio.gather(*ends), EXIT_SECONDS)
    assert status == 0
    retries = []
    for stream in streams:
        stream.writer.close()
        assert b"transfer-encoding: chunked" in stream.head.lower()
        assert stream.rest.endswith(LAST_CHUNK), "the last chunk of a body that was not cut off"
        parser = Parser()
        messages = list(parser.feed(stream.body))
        assert [event_id in message.data for message in messages] == [True]
        assert parser.retry_ms is not None
        retries.append(parser.retry_ms)
    assert all(1_000 <= retry <= 10_000 for retry in retries)
    assert len(set(retries)) > STREAMS / 4, "spread at random, so that they do not all come back at once"
    assert "Traceback" not in gateway.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_attempt_in_flight_at_the_end_is_repeated_after_the_start_and_does_not_count(
    workshop: Workshop, number: signal.Signals
) -> None:
    gateway, posts = workshop.gateway({"RETRY_SCHEDULE": "[60]"}), receiver(workshop)
    url = posts.behave("/hooks", Behaviour(silent=True))
    async with api_of(gateway) as api:
        subscription = await api.subscribe(url)
        event_id = await api.publish({"type": "custom", "library_id": "acme", "data": {"n": 1}})
        await eventually(posts.posts, "an attempt is in flight")
    stream = await _open_stream(gateway)
    asked = time.monotonic()
    gateway.signal(number)
    assert await _exit_status(gateway) == 0
    assert time.monotonic() - asked < EXIT_SECONDS
    await stream.read_to_end()
    stream.writer.close()
    assert stream.rest.endswith(LAST_CHUNK)
    assert "Traceback" not in gateway.output

    posts.behave("/hooks", Behaviour())
    await asyncio.to_thread(gateway.start)
    async with api_of(gateway) as api:

        async def delivered() -> dict[str, object] | None:
            delivery = await api.delivery(subscription_id=subscription["id"])
            return delivery if delivery["status"] == "delivered" else None

        delivery = await eventually_answered(
            delivered, "it is delivered after the start, not after the schedule's 60 s"
        )
    first, second = posts.posts()
    assert first.event_id == second.event_id == event_id
    assert first.body == second.body
    assert delivery["attempt_count"] == 1


async def test_a_request_in_flight_at_the_end_is_answered(workshop: Workshop) -> None:
    gateway = workshop.gateway()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    body = b'{"type": "custom", "library_id": "acme", "data": {}, "id": "slow"}'
    writer.write(
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nExpect: 100-continue\r\n"
        b"Authorization: Bearer %b\r\n\r\n" % (len(body), ADMIN_KEY.encode())
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100"), "the gateway has taken the request up"
    gateway.signal(signal.SIGTERM)
    await eventually_answered(lambda: _refuses(gateway), "no more connections are taken")
    writer.write(body)
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    status = int(answer.split(b" ")[1])
    assert status in {202, 503}
    assert await _exit_status(gateway) == 0
    await asyncio.to_thread(gateway.start)
    async with api_of(gateway) as api:
        there = [event["id"] for event in await api.events()]
    assert status == 503 or there == ["slow"], "what was answered 202 is there"


async def test_a_request_that_cannot_be_answered_in_time_is_told_to_come_again(workshop: Workshop) -> None:
    gateway = workshop.gateway()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n"
        b"Authorization: Bearer %b\r\n\r\n" % ADMIN_KEY.encode()
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100"), "the gateway has taken the request up"
    gateway.signal(signal.SIGTERM)
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"retry-after:" in answer.lower()
    assert b"/problems/overloaded" in answer
    assert await _exit_status(gateway) == 0


async def _refuses(gateway: GatewayProcess) -> bool:
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.get(f"{gateway.url}/health/live", timeout=1)
    except httpx.TransportError:
        return True
    return False


@pytest.fixture(scope="module")
def running(shared_workshop: Workshop) -> GatewayProcess:
    """One that is up, for those that only stand in its way or ask after it."""
    return shared_workshop.gateway()


def test_a_second_process_on_the_same_database_is_refused_with_one_line(
    running: GatewayProcess, workshop: Workshop
) -> None:
    second = workshop.unstarted_gateway({"DATABASE_URL": f"sqlite:///{running.database}"})
    second.spawn()
    assert second.wait(30) > 0
    [line] = second.output.splitlines()
    assert str(running.database) in line
    assert "in use" in line
    assert running.is_up


def test_a_port_that_is_taken_stops_the_start_with_one_line(running: GatewayProcess, workshop: Workshop) -> None:
    second = workshop.unstarted_gateway(port=running.port)
    second.spawn()
    assert second.wait(30) > 0
    [line] = second.output.splitlines()
    assert str(running.port) in line


def test_health_exits_with_0_only_when_a_gateway_is_ready(running: GatewayProcess) -> None:
    for url, status in ((running.url, 0), (f"http://127.0.0.1:{free_port()}", 1)):
        asked = subprocess.run([COMMAND, "health", "--url", url], capture_output=True, check=False, timeout=30)
        assert asked.returncode == status, asked


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://localhost/gateway"),
        ("RETRY_SCHEDULE", "5, 10"),
        ("ADMIN_KEY", "short"),
    ],
)
def test_a_bad_setting_stops_the_start_with_one_line_that_names_it(workshop: Workshop, name: str, value: str) -> None:
    gateway = workshop.unstarted_gateway({name: value})
    gateway.spawn()
    assert gateway.wait(30) > 0
    [line] = gateway.output.splitlines()
    assert f"GATEWAY_{name}" in line
    if name == "ADMIN_KEY":
        assert value not in line, "a secret does not print"


async def test_port_0_takes_a_free_one_and_an_empty_database_gets_an_admin_key_both_said_once(
    workshop: Workshop,
) -> None:
    gateway = workshop.unstarted_gateway({"ADMIN_KEY": ""}, port=0)
    gateway.spawn()
    url = (await eventually(lambda: re.search(r"http://127\.0\.0\.1:(\d+)", gateway.output), "the banner", within=30))[
        0
    ]
    key = (await eventually(lambda: re.search(KEY, gateway.output), "the key"))[0]
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        answer = await client.get("/v1/keys", headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200
    gateway.signal(signal.SIGTERM)
    assert await _exit_status(gateway) == 0
    printed = len(gateway.output)
    gateway.spawn()
    await eventually(lambda: re.search(r"http://127\.0\.0\.1:\d+", gateway.output[printed:]), "the banner", within=30)
    assert not re.search(KEY, gateway.output[printed:]), "neither the key again, nor another one"
