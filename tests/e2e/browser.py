"""A real Chromium with a page of another origin than the gateway's, and what its code sees of streams."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright

from tests.e2e.api import Api
from tests.e2e.processes import GatewayProcess
from tests.e2e.receivers import ReceiverProcess

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
IN_BROWSER = [
    pytest.mark.browser,
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome is installed"),
]
"""For `pytestmark`."""

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
async def a_page(pages: ReceiverProcess) -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            page = await browser.new_page()
            await page.goto(f"{pages.url}/page")
            yield page
        finally:
            await browser.close()


async def open_source(page: Page, gateway: GatewayProcess, api: Api, query: str = "", **token: object) -> None:
    made = await api.call("POST", "/v1/stream-tokens", token)
    await page.evaluate(OPEN, f"{gateway.url}/v1/events/stream?token={made['token']}{query}")


async def until_open(page: Page, times: int = 1) -> None:
    await page.wait_for_function(f"states.filter((s) => s === 'open').length >= {times}", timeout=30_000)


async def frames_seen(page: Page, count: int) -> list[tuple[str, str, dict[str, Any]]]:
    await page.wait_for_function(f"seen.length >= {count}", timeout=30_000)
    return [(type_, cursor, json.loads(data)) for type_, cursor, data in await page.evaluate("seen")]


async def publish(api: Api, library: str, number: int) -> str:
    type_ = "document.deleted" if number % 3 == 2 else "document.added"
    return await api.publish({"type": type_, "library_id": library, "data": {"number": number, "title": "Ünï\r\n🗂"}})
