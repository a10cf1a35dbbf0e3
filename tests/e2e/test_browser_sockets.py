"""WebSocket in a real Chromium: the seed's samples as they stand, and what page code sees of an end."""

import asyncio
import json
import re
import signal
from pathlib import Path
from typing import Any

from playwright.async_api import Page

from tests.e2e.api import Api, api_of
from tests.e2e.browser import IN_BROWSER, a_page
from tests.e2e.processes import GatewayProcess
from tests.e2e.receivers import ReceiverProcess

pytestmark = IN_BROWSER

LIBRARY = "550e8400-e29b-41d4-a716-446655440000"
SAMPLES: dict[str, str] = dict(
    re.findall(
        r"^## (.+?)\n\n```javascript\n(.*?)^```$",
        (Path(__file__).parents[1] / "seed" / "samples_browser.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
)
OPEN = """(url) => {
    window.messages = [];
    window.codes = [];
    const connect = (after) => {
        window.socket = new WebSocket(after ? `${url}&after=${after}` : url);
        let last = after;
        socket.onmessage = (e) => {
            messages.push(JSON.parse(e.data));
            last = messages.at(-1).cursor;
        };
        socket.onclose = (e) => {
            codes.push([e.code, e.wasClean]);
            if (e.code !== 4401) setTimeout(connect, 200, last);
        };
    };
    connect();
}"""
"""As an application would: it remembers its cursor, and comes back with it."""


async def token(api: Api, **limits: object) -> str:
    made = await api.call("POST", "/v1/stream-tokens", limits)
    return str(made["token"])


async def sample(title: str, gateway: GatewayProcess, api: Api) -> str:
    """The sample of that title, with the gateway's address and a token in it."""
    secret = await token(api, library_ids=[LIBRARY])
    code, here, end = SAMPLES[title], "ws://localhost:8000/v1/libraries/", "/ws`"
    assert code.count(here) == code.count(end) == 1
    return code.replace("localhost:8000", f"127.0.0.1:{gateway.port}").replace(end, f"/ws?token={secret}`")


async def publish(api: Api, type_: str, library_id: str = LIBRARY, **data: object) -> str:
    return await api.publish({"type": type_, "library_id": library_id, "data": data})


async def messages(page: Page, count: int, type_: str = "event") -> list[dict[str, Any]]:
    kept = f"messages.filter((m) => m.type === '{type_}')"
    await page.wait_for_function(f"{kept}.length >= {count}", timeout=30_000)
    found: list[dict[str, Any]] = await page.evaluate(kept)
    return found


async def test_the_subscription_sample_runs(gateway: GatewayProcess, pages: ReceiverProcess) -> None:
    async with a_page(pages) as page, api_of(gateway) as api:
        code = await sample("Method 2: WebSocket Subscription", gateway, api)
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        await page.evaluate(
            f"""(libraryId) => new Promise((opened) => {{
                window.handled = [];
                const handleEvent = (data) => handled.push(data);
                {code}
                ws.addEventListener("open", opened);
            }})""",
            LIBRARY,
        )
        await publish(api, "document.added", library_id="another")
        event_id = await publish(api, "document.added", title="My Document")
        await page.wait_for_function("handled.length === 1", timeout=30_000)
        [event] = await page.evaluate("handled")
        assert (event["id"], event["library_id"], event["data"]) == (event_id, LIBRARY, {"title": "My Document"})
        assert "Event received: document.added" in said


async def test_the_dashboard_sample_runs(gateway: GatewayProcess, pages: ReceiverProcess) -> None:
    async with a_page(pages) as page, api_of(gateway) as api:
        code = await sample("Real-Time Dashboard", gateway, api)
        await page.evaluate(
            f"""(libraryId) => new Promise((opened) => {{
                document.body.innerHTML = '<b id="doc-count">0</b>';
                {code}
                window.searches = [];
                LibraryDashboard.prototype.recordSearchActivity = (event) => searches.push(event.data.query);
                window.dashboard = new LibraryDashboard(libraryId);
                dashboard.ws.addEventListener("open", opened);
            }})""",
            LIBRARY,
        )
        for type_ in ("document.added", "document.added", "document.added", "document.deleted"):
            await publish(api, type_)
        await publish(api, "search.performed", query="machine learning")
        await page.wait_for_function("searches.length === 1", timeout=30_000)
        assert await page.inner_text("#doc-count") == "2"
        assert await page.evaluate("searches") == ["machine learning"]


async def test_page_code_sees_4401_when_its_token_runs_out(gateway: GatewayProcess, pages: ReceiverProcess) -> None:
    async with a_page(pages) as page, api_of(gateway) as api:
        await page.evaluate(OPEN, f"ws://127.0.0.1:{gateway.port}/v1/events/ws?token={await token(api, ttl_seconds=2)}")
        await page.wait_for_function("codes.length === 1", timeout=30_000)
        assert await page.evaluate("codes") == [[4401, True]]


async def test_page_code_sees_1012_at_a_drain_and_a_lost_connection_at_a_kill_and_misses_nothing(
    gateway: GatewayProcess, pages: ReceiverProcess
) -> None:
    published = []
    async with a_page(pages) as page, api_of(gateway) as api:
        secret = await token(api, library_ids=["sockets"], types=["document.*"])
        await page.evaluate(OPEN, f"ws://127.0.0.1:{gateway.port}/v1/events/ws?token={secret}")
        await messages(page, 1, "checkpoint")
        published += [await publish(api, "document.added", "sockets") for _ in range(3)]
        await messages(page, len(published))
        gateway.signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.wait, 5) == 0
        await asyncio.to_thread(gateway.start)
        published += [await publish(api, "document.added", "sockets") for _ in range(3)]
        await messages(page, len(published))
        await asyncio.to_thread(gateway.kill)
        await asyncio.to_thread(gateway.start)
        published += [await publish(api, "document.added", "sockets") for _ in range(3)]
        seen = await messages(page, len(published))
        assert [message["id"] for message in seen] == published
        codes = await page.evaluate("codes")
        assert codes[0] == [1012, True]
        assert {code for code, _ in codes[1:]} == {1006}


async def test_page_code_is_told_of_a_gap(gateway: GatewayProcess, pages: ReceiverProcess) -> None:
    async with a_page(pages) as page, api_of(gateway) as api:
        secret = await token(api, library_ids=["socket-gaps"])
        await page.evaluate(OPEN, f"ws://127.0.0.1:{gateway.port}/v1/events/ws?token={secret}&after=another-7")
        [gap] = await messages(page, 1, "gap")
        assert gap["requested"] == "another-7"


async def test_both_ways_read_back_what_was_published_whatever_it_is(
    gateway: GatewayProcess, pages: ReceiverProcess
) -> None:
    """Strings that JSON, UTF-8, lines of SSE or JavaScript could trip over, written raw and as escapes."""
    texts = [
        "",
        "\r\n\r\n",
        "\n" * 50_000,
        "\0",
        "\ufeff",
        "\u2028\u2029\x85",
        "🗂é\x7f",
        "data: x\n\nid: 9",
        '"\\',
        " a ",
    ]
    bodies = [json.dumps({"s": text}, ensure_ascii=escaped) for text in texts for escaped in (True, False)]
    bodies += ['{"s": "\\ud800 half"}', '{"s": "\\uDC00"}', '{"s": "\\/\\b\\u0041"}']
    async with a_page(pages) as page, api_of(gateway) as api:
        secret = await token(api, library_ids=["texts"])
        await page.evaluate(
            """([http, ws]) => {
                window.read = {sse: [], websocket: []};
                const source = new EventSource(http);
                source.onmessage = (e) => read.sse.push(JSON.parse(e.data).data.s);
                const socket = new WebSocket(ws);
                socket.onmessage = (e) => {
                    const message = JSON.parse(e.data);
                    if (message.type === "event") read.websocket.push(message.data.s);
                };
                const opened = [source, socket].map((each) => new Promise((done) => each.onopen = done));
                return Promise.all(opened).then(() => null);
            }""",
            [
                f"{gateway.url}/v1/events/stream?named=false&token={secret}&since=2020-01-01T00:00:00Z",
                f"ws://127.0.0.1:{gateway.port}/v1/events/ws?token={secret}&since=2020-01-01T00:00:00Z",
            ],
        )
        for body in bodies:
            event = f'{{"type": "custom", "library_id": "texts", "data": {body}}}'
            answer = await api.client.post("/v1/events", content=event.encode())
            assert answer.status_code == 202, (body[:80], answer.text)
        for way in ("sse", "websocket"):
            await page.wait_for_function(f"read.{way}.length === {len(bodies)}", timeout=30_000)
            same = "([way, bodies]) => bodies.map((body, i) => JSON.parse(body).s === read[way][i])"
            # Escaped on the way to the page, so that only the gateway's way is looked at.
            assert await page.evaluate(same, [way, [json.dumps(json.loads(body)) for body in bodies]]) == [True] * len(
                bodies
            )
