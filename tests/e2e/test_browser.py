"""EventSource in a real Chromium, on a page of another origin."""

import asyncio
import json
import random
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.http.frames import MEDIA_TYPE, frame
from tests.e2e.api import api_of
from tests.e2e.browser import IN_BROWSER, OPEN, a_page, frames_seen, open_source, publish, until_open
from tests.e2e.processes import GatewayProcess, Workshop
from tests.e2e.receivers import ReceiverProcess, receiver
from tests.e2e.streams import StreamReader

KILLS = 2

pytestmark = IN_BROWSER


@pytest.mark.chaos
async def test_eventsource_survives_kill_9_by_itself_and_sees_each_event_once_and_in_order(
    gateway: GatewayProcess, pages: ReceiverProcess
) -> None:
    published: list[str] = []
    async with a_page(pages) as page, api_of(gateway) as api:
        await open_source(page, gateway, api, library_ids=["kills"], types=["document.*"])
        await until_open(page)
        for number in range(KILLS):
            published += [await publish(api, "kills", n) for n in range(5)]
            await frames_seen(page, len(published))
            await asyncio.to_thread(gateway.kill)
            await asyncio.to_thread(gateway.start)
            published += [await publish(api, "kills", n) for n in range(5)]  # some of it before the browser is back
            await until_open(page, number + 2)
        seen = await frames_seen(page, len(published))
        assert [event["id"] for _, _, event in seen] == published
        assert {type_ for type_, _, _ in seen} == {"document.added", "document.deleted"}
        assert [(event["cursor"], event["type"]) for event in await api.events(library_id="kills")] == [
            (cursor, type_) for type_, cursor, _ in seen
        ]
        assert "closed" not in await page.evaluate("states")


@pytest.mark.chaos
async def test_an_event_published_between_opening_and_the_first_event_is_not_lost_when_the_gateway_dies(
    gateway: GatewayProcess, pages: ReceiverProcess
) -> None:
    async with a_page(pages) as page, api_of(gateway) as api:
        await open_source(page, gateway, api, library_ids=["early"])
        await until_open(page)
        await asyncio.to_thread(gateway.kill)
        await asyncio.to_thread(gateway.start)
        event_id = await publish(api, "early", 0)
        [(_, _, event)] = await frames_seen(page, 1)
        assert event["id"] == event_id


async def test_onmessage_gets_everything_of_an_unnamed_stream(gateway: GatewayProcess, pages: ReceiverProcess) -> None:
    async with a_page(pages) as page, api_of(gateway) as api:
        await open_source(page, gateway, api, query="&named=false", library_ids=["unnamed"])
        await until_open(page)
        published = [await publish(api, "unnamed", n) for n in range(2)]
        seen = await frames_seen(page, 2)
        assert [(type_, event["id"]) for type_, _, event in seen] == [("message", id_) for id_ in published]


async def test_a_token_that_runs_out_is_told_before_the_end(gateway: GatewayProcess, pages: ReceiverProcess) -> None:
    async with a_page(pages) as page, api_of(gateway) as api:
        await open_source(page, gateway, api, ttl_seconds=2)
        await until_open(page)
        await page.wait_for_function("seen.some(([type]) => type === 'gateway.expired')", timeout=30_000)
        await page.wait_for_function("source.readyState === EventSource.CLOSED", timeout=30_000)


async def test_a_page_of_an_origin_that_is_not_listed_sees_nothing(gateway: GatewayProcess, workshop: Workshop) -> None:
    other = receiver(workshop, name="other")
    async with a_page(other) as page, api_of(gateway) as api:
        await publish(api, "elsewhere", 0)
        await open_source(page, gateway, api, query="&since=2020-01-01T00:00:00Z")
        await page.wait_for_function("states.length > 0", timeout=30_000)
        assert set(await page.evaluate("states")) <= {"connecting", "closed"}
        assert await page.evaluate("seen") == []


async def test_page_code_is_told_of_a_gap(gateway: GatewayProcess, pages: ReceiverProcess) -> None:
    async with a_page(pages) as page, api_of(gateway) as api:
        event_id = await publish(api, "gaps", 0)
        await open_source(page, gateway, api, query="&last_event_id=another-7", library_ids=["gaps"])
        (type_, _, gap), (_, _, event) = await frames_seen(page, 2)
        assert (type_, gap["requested"]) == ("gateway.gap", "another-7")
        assert gap["earliest"] is not None
        assert event["id"] == event_id


async def test_eventsource_comes_back_after_a_drain_and_misses_nothing(
    gateway: GatewayProcess, pages: ReceiverProcess
) -> None:
    async with a_page(pages) as page, api_of(gateway) as api:
        await open_source(page, gateway, api, library_ids=["drains"])
        await until_open(page)
        published = [await publish(api, "drains", 0)]
        await frames_seen(page, 1)
        gateway.signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.wait, 5) == 0
        await asyncio.to_thread(gateway.start)  # on the same port
        published += [await publish(api, "drains", n) for n in (1, 2)]
        seen = await frames_seen(page, 3)
        assert [event["id"] for _, _, event in seen] == published
        assert "closed" not in await page.evaluate("states")


async def test_eventsource_that_finds_no_room_comes_back_until_there_is(
    workshop: Workshop, pages: ReceiverProcess
) -> None:
    gateway = workshop.gateway({"CORS_ORIGINS": json.dumps([pages.url]), "MAX_STREAMS": "1"})
    async with a_page(pages) as page, api_of(gateway) as api:
        async with StreamReader(api.client, "/v1/events/stream") as first:
            await first.opened.wait()
            await open_source(page, gateway, api)
            await page.wait_for_function("states.join() === 'open,connecting'", timeout=30_000)
        await until_open(page, 2)  # 2 to 15 s later
        await page.wait_for_function("source.readyState === EventSource.OPEN", timeout=60_000)
        event_id = await publish(api, "room", 0)
        [(_, _, event)] = await frames_seen(page, 1)
        assert event["id"] == event_id
        assert "closed" not in await page.evaluate("states")


@asynccontextmanager
async def stream_of(body: bytes) -> AsyncIterator[str]:
    """The URL of an event stream that consists of *body*; whoever comes back is told not to."""
    allowed = b"access-control-allow-origin: *\r\nconnection: close\r\n\r\n"
    answers = [
        b"HTTP/1.1 204 No Content\r\n" + allowed,
        b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%b%b" % (MEDIA_TYPE.encode(), allowed, body),
    ]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers.pop() if len(answers) > 1 else answers[0])
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def test_eventsource_reads_back_whatever_stands_in_a_frame(pages: ReceiverProcess) -> None:
    """A gateway's frame carries JSON on one line; its frames would carry anything."""
    chance = random.Random(7)
    pieces = ["\r\n", "\r", "\n", "\0", "\ufeff", ":", " ", "data:", "id: 1", "é", "🗂", "\u2028", "\x85", "\ud800"]
    texts = ["", "\n" * 2**20, "\r\n" * 1_000, " ", "\ufeff", "\n", "\r"]
    texts += ["".join(chance.choices(pieces, k=chance.randint(1, 12))) for _ in range(500)]
    frames = [
        frame(value=text.encode("utf-8", "replace"), event="message", cursor=f"{number}-{text[:99]}")
        for number, text in enumerate(texts)
    ]
    async with a_page(pages) as page, stream_of(b"retry: 100\n\n" + b"".join(frames)) as url:
        await page.evaluate(OPEN, url)
        await page.wait_for_function("source.readyState === EventSource.CLOSED", timeout=60_000)
        seen = await page.evaluate("seen")
    assert len(seen) == len(texts)
    for number, (text, (type_, cursor, data)) in enumerate(zip(texts, seen, strict=True)):
        written = text.encode("utf-8", "replace").decode()
        assert type_ == "message"
        assert data == re.sub("\r\n|\r", "\n", written)
        assert cursor == f"{number}-" + re.sub("[\r\n\0]", "\ufffd", written[:99])
