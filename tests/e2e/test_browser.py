"""EventSource in a real Chromium, on a page of another origin."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright

from tests.e2e.api import Api, api_of
from tests.e2e.processes import GatewayProcess, Workshop
from tests.e2e.receivers import ReceiverProcess, receiver

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
KILLS = 2

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome is installed"),
]

OPEN = """(url) => {
    window.seen = [];
    window.states = [];
    window.source = new EventSource(url);
    source.onopen = () => states.push("open");
    source.onerror = () => states.push(source.readyState === EventSource.CLOSED ? "closed" : "connecting");
    const note = (e) => seen.push([e.type, e.lastEventId, e.data]);
    for (const type of ["message", "document.added", "document.deleted", "gateway.gap", "gateway.expired"])
        source.addEventListener(type, note);
}"""


@asynccontextmanager
async def _page(posts: ReceiverProcess) -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            page = await browser.new_page()
            await page.goto(f"{posts.url}/page")
            yield page
        finally:
            await browser.close()


@pytest.fixture(scope="module")
def posts(shared_workshop: Workshop) -> ReceiverProcess:
    """Serves the page: another port is another origin."""
    return receiver(shared_workshop)


@pytest.fixture(scope="module")
def gateway(shared_workshop: Workshop, posts: ReceiverProcess) -> GatewayProcess:
    """For all tests here, each with a library of its own."""
    return shared_workshop.gateway({"CORS_ORIGINS": json.dumps([posts.url]), "STREAM_HEARTBEAT_SECONDS": "1"})


async def _open(page: Page, gateway: GatewayProcess, api: Api, query: str = "", **token: object) -> None:
    made = await api.call("POST", "/v1/stream-tokens", token)
    await page.evaluate(OPEN, f"{gateway.url}/v1/events/stream?token={made['token']}{query}")


async def _until_open(page: Page, times: int = 1) -> None:
    await page.wait_for_function(f"states.filter((s) => s === 'open').length >= {times}", timeout=30_000)


async def _seen(page: Page, count: int) -> list[tuple[str, str, dict[str, Any]]]:
    await page.wait_for_function(f"seen.length >= {count}", timeout=30_000)
    return [(type_, cursor, json.loads(data)) for type_, cursor, data in await page.evaluate("seen")]


async def test_eventsource_survives_kill_9_by_itself_and_sees_each_event_once_and_in_order(
    gateway: GatewayProcess, posts: ReceiverProcess
) -> None:
    published: list[str] = []
    async with _page(posts) as page, api_of(gateway) as api:
        await _open(page, gateway, api, library_ids=["kills"], types=["document.*"])
        await _until_open(page)
        for number in range(KILLS):
            published += [await _publish(api, "kills", n) for n in range(5)]
            await _seen(page, len(published))
            await asyncio.to_thread(gateway.kill)
            await asyncio.to_thread(gateway.start)
            published += [await _publish(api, "kills", n) for n in range(5)]  # some of it before the browser is back
            await _until_open(page, number + 2)
        seen = await _seen(page, len(published))
        assert [event["id"] for _, _, event in seen] == published
        assert {type_ for type_, _, _ in seen} == {"document.added", "document.deleted"}
        assert [(event["cursor"], event["type"]) for event in await api.events(library_id="kills")] == [
            (cursor, type_) for type_, cursor, _ in seen
        ]
        assert "closed" not in await page.evaluate("states")


async def test_an_event_published_between_opening_and_the_first_event_is_not_lost_when_the_gateway_dies(
    gateway: GatewayProcess, posts: ReceiverProcess
) -> None:
    async with _page(posts) as page, api_of(gateway) as api:
        await _open(page, gateway, api, library_ids=["early"])
        await _until_open(page)
        await asyncio.to_thread(gateway.kill)
        await asyncio.to_thread(gateway.start)
        event_id = await _publish(api, "early", 0)
        [(_, _, event)] = await _seen(page, 1)
        assert event["id"] == event_id


async def test_onmessage_gets_everything_of_an_unnamed_stream(gateway: GatewayProcess, posts: ReceiverProcess) -> None:
    async with _page(posts) as page, api_of(gateway) as api:
        await _open(page, gateway, api, query="&named=false", library_ids=["unnamed"])
        await _until_open(page)
        published = [await _publish(api, "unnamed", n) for n in range(2)]
        seen = await _seen(page, 2)
        assert [(type_, event["id"]) for type_, _, event in seen] == [("message", id_) for id_ in published]


async def test_a_token_that_runs_out_is_told_before_the_end(gateway: GatewayProcess, posts: ReceiverProcess) -> None:
    async with _page(posts) as page, api_of(gateway) as api:
        await _open(page, gateway, api, ttl_seconds=2)
        await _until_open(page)
        await page.wait_for_function("seen.some(([type]) => type === 'gateway.expired')", timeout=30_000)
        await page.wait_for_function("source.readyState === EventSource.CLOSED", timeout=30_000)


async def test_a_page_of_an_origin_that_is_not_listed_sees_nothing(gateway: GatewayProcess, workshop: Workshop) -> None:
    other = receiver(workshop, name="other")
    async with _page(other) as page, api_of(gateway) as api:
        await _publish(api, "elsewhere", 0)
        await _open(page, gateway, api, query="&since=2020-01-01T00:00:00Z")
        await page.wait_for_function("states.length > 0", timeout=30_000)
        assert set(await page.evaluate("states")) <= {"connecting", "closed"}
        assert await page.evaluate("seen") == []


async def _publish(api: Api, library: str, number: int) -> str:
    type_ = "document.deleted" if number % 3 == 2 else "document.added"
    return await api.publish({"type": type_, "library_id": library, "data": {"number": number, "title": "Ünï\r\n🗂"}})
