"""Ten thousand streams on one process; and readers that stop reading, whom nobody else notices."""

import asyncio
import json
import signal
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest

from tests.e2e.api import Api, api_of
from tests.e2e.crowd import SSE, WEBSOCKET, Crowd, Member, many_open_files
from tests.e2e.processes import GatewayProcess, Workshop
from tests.e2e.streams import StreamReader
from tests.e2e.waiting import eventually, eventually_answered
from tests.http.sockets import SocketReader, opened

pytestmark = [pytest.mark.scale, pytest.mark.timeout(300)]

SSE_STREAMS, SOCKETS = 7_000, 3_000
EVENTS = 10
MARK = b'"scale":'
EXIT_SECONDS = 5.0
STREAM_KIB = 64
"""Many times what one takes: what this is to find is what grows without end."""


def rss_kib(gateway: GatewayProcess) -> int:
    return int(psutil.Process(gateway.child.pid).memory_info().rss) // 1024


async def test_ten_thousand_streams_are_opened_fed_and_drained(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    with many_open_files(SSE_STREAMS + SOCKETS + 500) as enough:
        if not enough:
            pytest.skip("this process may not open so many files (ulimit -Hn)")
        gateway = workshop.gateway()
        crowd = Crowd(gateway, MARK)
        try:
            async with api_of(gateway) as api:
                empty = rss_kib(gateway)
                streams = await crowd.join(SSE_STREAMS, SSE, "/v1/events/stream")
                with_streams = rss_kib(gateway)
                sockets = await crowd.join(SOCKETS, WEBSOCKET, "/v1/events/ws")
                full = rss_kib(gateway)
                for number in range(EVENTS):
                    await api.publish({"type": "custom", "library_id": "acme", "data": {"scale": number}})
                await eventually(
                    lambda: all(member.marks == EVENTS for member in crowd.members), "each has each event", within=120
                )
                fed = rss_kib(gateway)
            asked = time.monotonic()
            gateway.signal(signal.SIGTERM)
            ends = asyncio.create_task(crowd.ends())
            assert await asyncio.to_thread(gateway.wait, EXIT_SECONDS) == 0
            took = time.monotonic() - asked
            await asyncio.wait_for(ends, 30)
        finally:
            crowd.leave()
    with capsys.disabled():
        print(  # noqa: T201 - the figures are what one wants to see of it
            f"\n{SSE_STREAMS} streams at {(with_streams - empty) / SSE_STREAMS:.1f} KiB, "
            f"{SOCKETS} sockets at {(full - with_streams) / SOCKETS:.1f} KiB each; after {EVENTS} events to all "
            f"{(fed - full) / 1024:+.0f} MiB; drained in {took:.1f} s"
        )
    assert all(member.tail.endswith(b"0\r\n\r\n") and b"retry: " in member.tail for member in streams)
    assert all(b"\x88" in member.tail and struct.pack("!H", 1012) in member.tail for member in sockets)
    assert fed - empty < STREAM_KIB * len(crowd.members)
    assert "Traceback" not in gateway.output


# --- readers that stop reading ---------------------------------------------------------------------------------------

STALLED = 10
"""Of each kind."""
BIG = 200_000
ROUND = 120
"""Events of BIG bytes: more than the ring and all caches hold."""
GROWTH_KIB = 160 * 1024
"""Twenty readers for whom all was kept would take 960 MiB; the ring may grow by what it keeps for those behind."""


async def publish_round(api: Api, reader: StreamReader, first: int) -> None:
    for number in range(first, first + ROUND):
        await api.publish({"type": "custom", "library_id": "acme", "data": {"n": number, "x": "x" * BIG}})
    await eventually(lambda: len(reader.messages) == first + ROUND, "who reads has all of it", within=60)


def stop_reading(member: Member) -> None:
    member.transport.pause_reading()


@asynccontextmanager
async def resumed(gateway: GatewayProcess, after: str, secret: str) -> AsyncIterator[SocketReader]:
    async with opened(gateway.port, f"/v1/events/ws?after={after}", secret=secret, max_size=None) as reader:
        yield reader


async def test_readers_that_stop_reading_cost_nothing_and_come_back(workshop: Workshop) -> None:
    gateway = workshop.gateway()
    crowd = Crowd(gateway, b'"x":"xxx')
    try:
        async with api_of(gateway) as api, StreamReader(api.client, "/v1/events/stream") as healthy:
            await healthy.opened.wait()
            await publish_round(api, healthy, 0)
            before = rss_kib(gateway)  # with the ring and the caches as full as they get
            stalled: list[Member] = []
            for number in range(STALLED):
                # Each with a filter of its own: what is kept for one would be shared by all who want the same.
                query = f"?filter=event.data.n%3E-{number}"
                stalled += await crowd.join(1, SSE, f"/v1/events/stream{query}1")
                stalled += await crowd.join(1, WEBSOCKET, f"/v1/events/ws{query}2")
            for member in stalled:
                stop_reading(member)
            await publish_round(api, healthy, ROUND)
            await publish_round(api, healthy, 2 * ROUND)
            grown = rss_kib(gateway) - before

            async def healthy_alone() -> bool:
                listing = await api.call("GET", "/v1/streams")
                return len(listing["data"]) == 1

            await eventually_answered(healthy_alone, "who stopped reading was closed", within=60)
            for member in stalled:
                member.transport.resume_reading()
            await asyncio.wait_for(crowd.ends(), 30)
            assert grown < GROWTH_KIB, f"grown by {grown} KiB"
            assert healthy.connections == 1
            assert [event["data"]["n"] for event in healthy.events] == list(range(3 * ROUND))
            assert {0 < member.marks < 2 * ROUND for member in stalled} == {True}, "they got a part, and no more"
    finally:
        crowd.leave()


async def test_who_stopped_reading_resumes_completely(workshop: Workshop) -> None:
    gateway = workshop.gateway()
    async with api_of(gateway) as api:
        secret = api.client.headers["authorization"].removeprefix("Bearer ")
        async with opened(gateway.port, "/v1/events/ws", secret=secret, max_size=None) as slow:
            await slow.read()
            for number in range(ROUND):
                await api.publish({"type": "custom", "library_id": "acme", "data": {"n": number, "x": "x" * BIG}})

            async def closed() -> bool:
                return not (await api.call("GET", "/v1/streams"))["data"]

            await eventually_answered(closed, "it was closed", within=60)
            assert await slow.code() == 1013
        assert 0 < len(slow.numbers) < ROUND
        async with resumed(gateway, slow.places[-1], secret) as back:
            await back.until_events(ROUND - len(slow.numbers))
        assert slow.numbers + back.numbers == list(range(ROUND))
        assert json.loads(slow.texts[-1])["data"]["x"] == "x" * BIG
