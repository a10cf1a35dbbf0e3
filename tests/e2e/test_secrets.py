"""No secret comes out but where it is meant to, once: logs of all levels, answers of all kinds, stored attempts."""

import asyncio
import base64
import json
import resource
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus

import httpx
import pytest

from tests.e2e import loud
from tests.e2e.api import Api, Json
from tests.e2e.processes import ADMIN_KEY, GatewayProcess, Workshop
from tests.e2e.waiting import eventually, eventually_answered
from tests.sending import animals
from tests.sending.receivers import OK, receiving

GIVEN = "whsec_" + base64.b64encode(b"a secret of a subscription's own").decode()
HEADER = "swordfish/and+chips?"
BEARER = "mackerel-and-peas"
WRONG_KEY = "arrw_wrong_herring-in-a-jar"
SURPRISED = "haddock-in-a-body"


@dataclass(slots=True)
class Watch:
    """All that came out, and what must not be in it."""

    secrets: dict[str, str] = field(default_factory=dict)
    """By what each is."""
    heard: list[tuple[str, str, str]] = field(default_factory=list)
    """Where from, and the text; with what may be in it, by name."""

    def keep(self, name: str, secret: str) -> str:
        self.secrets[name] = secret
        return secret

    def leaks(self) -> Iterator[str]:
        for name, secret in self.secrets.items():
            for form in _forms(secret):
                for place, text, but in self.heard:
                    if but != name and form in text:
                        yield f"{name} as {form!r} in {place}: …{_around(text, form)}…"


def _forms(secret: str) -> set[str]:
    """*secret* as it could be written: in clear, without its prefix, in base64 of every alignment, and for a URL."""
    bare = secret.partition("_")[2] if secret.startswith("wh") else secret
    raw = secret.encode()
    # Within a longer text, base64 of it looks one of three ways, but for the ends.
    inside = {base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 : -4].decode() for shift in range(3)}
    return {secret, bare, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], *inside}


def _around(text: str, form: str) -> str:
    place = text.index(form)
    return text[max(0, place - 150) : place + len(form) + 50]


@asynccontextmanager
async def _watched(gateway: GatewayProcess, watch: Watch) -> AsyncIterator[Api]:
    """A client whose every answer is kept."""

    async def hear(answer: httpx.Response) -> None:
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            return
        text = (await answer.aread()).decode(errors="replace") + repr(answer.headers)
        request = answer.request
        watch.heard.append((f"{request.method} {request.url.path}", text, request.headers.get("x-shows", "")))

    async with httpx.AsyncClient(
        base_url=gateway.url,
        headers={"authorization": f"Bearer {ADMIN_KEY}"},
        trust_env=False,
        timeout=30,
        event_hooks={"response": [hear]},
    ) as client:
        yield Api(client)


async def _show(api: Api, method: str, path: str, body: object, shows: str) -> Json:
    """Call what is meant to show the secret of this name."""
    answer = await api.client.request(method, path, json=body, headers={"x-shows": shows})
    assert answer.is_success, answer.text
    shown: Json = answer.json()
    return shown


@contextmanager
def _little_room(gateway: GatewayProcess) -> Iterator[None]:
    """The kernel lets its files grow little more, as on a disk that is nearly full."""
    wal = gateway.database.with_name(gateway.database.name + "-wal")
    size = max(wal.stat().st_size, gateway.log.stat().st_size) + 2**20
    soft, hard = resource.prlimit(gateway.child.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.child.pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.prlimit(gateway.child.pid, resource.RLIMIT_FSIZE, (soft, hard))


async def _subscribe(api: Api, watch: Watch, url: str, **fields: object) -> Json:
    body = {"url": url, "headers": {"x-token": HEADER, "authorization": f"Bearer {BEARER}"}, **fields}
    name = "given secret" if "secret" in fields else f"secret of {url}"
    made = await _show(api, "POST", "/v1/subscriptions", body, name)
    if made["secret"] is not None:
        watch.keep(name, made["secret"])
    return made


async def _work(api: Api, watch: Watch, gateway: GatewayProcess) -> None:
    """Everything that has a secret at hand, going well."""
    key = await _show(api, "POST", "/v1/keys", {"name": "k", "scopes": ["publish", "stream"]}, "key")
    watch.keep("key", key["key"])
    token = await _show(api, "POST", "/v1/stream-tokens", {"types": ["document.*"]}, "token")
    watch.keep("token", token["token"])
    async with api.client.stream("GET", "/v1/events/stream", params={"token": token["token"]}) as stream:
        assert stream.status_code == 200
        async for line in stream.aiter_lines():
            if line.startswith("id:"):
                break
        await api.call("GET", "/v1/streams")
    for path in ("/v1/keys", "/v1/subscriptions", "/openapi.json", "/v1/event-types"):
        await api.client.get(path)
    await api.client.get("/docs")
    await api.call("DELETE", f"/v1/keys/{key['id']}")
    await api.client.get("/v1/events", headers={"authorization": f"Bearer {key['key']}"})


async def _bad_requests(api: Api, watch: Watch) -> None:
    watch.keep("wrong key", WRONG_KEY)
    wrong = {"authorization": f"Bearer {WRONG_KEY}"}
    for headers in (
        wrong,
        {"authorization": WRONG_KEY},
        {"authorization": f"Basic {WRONG_KEY}"},
        {"cookie": WRONG_KEY},
    ):
        await api.client.get("/v1/events", headers=headers)
    for path in ("/v1/events/stream", "/v1/events", "/nowhere"):
        answer = await api.client.get(path, params={"token": WRONG_KEY}, headers=wrong)
        assert answer.status_code in {401, 404}
    watch.keep("given secret", GIVEN)
    fields: Json = {"url": "http://127.0.0.1:1/", "secret": GIVEN, "headers": {"x-token": HEADER}}
    for wrongly in (
        {**fields, "unknown": 1},
        {**fields, "url": "http://10.0.0.1/"},
        {**fields, "url": 7},
        {**fields, "types": []},
        {**fields, "headers": {"x-token": HEADER + "\n"}},
        {**fields, "headers": {"webhook-x": HEADER}},
        {**fields, "headers": {HEADER: "x"}},
        {**fields, "headers": [HEADER]},
        {**fields, "secret": GIVEN[:-8] + "(("},
        {**fields, "secret": "whsk_" + GIVEN},
        {**fields, "secret": [GIVEN]},
    ):
        answer = await api.client.post("/v1/subscriptions", json=wrongly)
        assert answer.status_code in {400, 422}, answer.text
    await api.client.post("/v1/subscriptions", content=json.dumps(fields)[:-3])
    await api.client.post("/v1/keys", json={"name": WRONG_KEY, "scopes": [WRONG_KEY], "key": WRONG_KEY})


async def _failing_deliveries(api: Api, watch: Watch, urls: dict[str, str]) -> None:
    secrets: dict[str, Json] = {"given": {"secret": GIVEN}, "v1a": {"signature": "v1a"}}
    made = {}
    for name, url in urls.items():
        made[name] = await _subscribe(
            api, watch, url, library_ids=["watched"], retry_schedule=[0.0], timeout_seconds=1, **secrets.get(name, {})
        )
    rotated = f"/v1/subscriptions/{made['echo']['id']}"
    fresh = await _show(api, "POST", f"{rotated}/rotate-secret", {}, "rotated secret")
    watch.keep("rotated secret", fresh["secret"])
    assert (await _show(api, "GET", f"{rotated}/secret", None, "rotated secret"))["secret"] == fresh["secret"]
    await api.call("PATCH", rotated, {"description": "seen"})
    await api.call("POST", f"{rotated}/test")
    await api.call("POST", "/v1/subscriptions/" + made["v1a"]["id"] + "/test")
    await api.client.get("/v1/subscriptions/" + made["v1a"]["id"] + "/secret")
    await api.client.get("/v1/subscriptions/" + made["v1a"]["id"] + "/public-key")
    await api.publish({"type": "custom", "library_id": "watched", "data": {}})

    async def all_settled() -> bool:
        found = await api.deliveries(library_id="watched")
        return len(found) == len(urls) and all(one["status"] != "pending" for one in found)

    await eventually_answered(all_settled, "each is delivered or dead", every=0.1)
    for one in await api.deliveries():
        whole = await api.call("GET", f"/v1/deliveries/{one['id']}")
        assert {attempt["request_headers"]["x-token"] for attempt in whole["attempts"]} == {"***"}
    await api.call("GET", "/v1/dead-letters")
    for one in made.values():
        await api.client.get(f"/v1/subscriptions/{one['id']}")
        await api.client.get(f"/v1/subscriptions/{one['id']}/stats")


async def _surprises(api: Api, watch: Watch, gateway: GatewayProcess) -> None:
    """Faults of ours, and of the disk, with tracebacks."""
    watch.keep("surprised", SURPRISED)
    answer = await api.client.post(loud.SURPRISE, json={"secret": SURPRISED})
    assert answer.status_code == 500
    with _little_room(gateway):
        large = {"type": "custom", "library_id": "watched", "data": {"text": "x" * 200_000}}
        while (await api.client.post("/v1/events", json=[large] * 3)).is_success:
            pass
        unstored = {"url": "http://127.0.0.1:1/", "secret": GIVEN}
        await api.client.post("/v1/subscriptions", json=unstored, headers={"x-shows": "given secret"})
        await api.client.post("/v1/keys", json={"name": "n", "scopes": ["publish"]})
        await eventually(lambda: "delivery.settle_" in gateway.output, "what was sent cannot be stored either")


@pytest.mark.parametrize("style", ["console", "json"])
async def test_no_secret_comes_out_but_where_it_is_shown_once(workshop: Workshop, style: str) -> None:
    gateway = workshop.unstarted_gateway({"LOG_FORMAT": style})
    gateway.command = [sys.executable, str(Path(loud.__file__))]
    await asyncio.to_thread(gateway.start)
    watch = Watch()
    watch.keep("admin key", ADMIN_KEY)
    watch.keep("header", HEADER)
    watch.keep("bearer", BEARER)
    async with (
        receiving(animals.echoing) as echo,
        receiving(OK) as good,
        receiving(animals.resetting) as resetting,
        _watched(gateway, watch) as api,
    ):
        urls = {
            "echo": echo.url(),
            "given": good.url(),
            "v1a": good.url(),
            "resetting": resetting.url(),
            "refused": "http://127.0.0.1:1/",
            "tls": good.url(scheme="https"),
            "no such name": "http://nowhere.invalid/",
        }
        await _bad_requests(api, watch)
        await _failing_deliveries(api, watch, urls)
        await _work(api, watch, gateway)
        await _surprises(api, watch, gateway)
        for event in await api.events(type="gateway.*"):
            assert event["library_id"] == "gateway"
        await api.client.get("/metrics")
    output = gateway.output
    for told in ("RuntimeError", "delivery.attempted", "storage.unavailable", "INSERT INTO subscriptions"):
        assert told in output, "the log is as talkative as it gets"
    watch.heard.append(("the log", output, ""))
    leaks = list(watch.leaks())
    assert not leaks, "\n".join(leaks)
