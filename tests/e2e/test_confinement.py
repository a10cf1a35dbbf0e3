"""A confined key or token sees nothing of other libraries, by whatever way and whatever parameter it asks."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import product
from urllib.parse import urlencode

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.e2e.api import Api, Json, api_of
from tests.e2e.processes import GatewayProcess, Workshop
from tests.e2e.streams import Parser
from tests.http.sockets import opened

MINE, OTHER = "mine", "other"
SILENT = "http://127.0.0.1:9/hooks"
PAST = "2020-01-01T00:00:00Z"


@dataclass(frozen=True)
class World:
    """Some events of each library, and credentials that are good for one of them."""

    gateway: GatewayProcess
    api: Api
    credentials: dict[str, tuple[str | None, str | None]]
    """Name → key, token."""
    clients: dict[str, httpx.AsyncClient]
    """Who sends these."""
    visible: frozenset[str]
    own_visible: frozenset[str]
    """The gateway's own events about what is theirs."""
    cursors: dict[str, str]
    head: str
    hidden: str
    """The id of an event of the other library."""


def client_for(gateway: GatewayProcess, key: str | None, token: str | None) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=gateway.url,
        headers={} if key is None else {"authorization": f"Bearer {key}"},
        params={} if token is None else {"token": token},
        trust_env=False,
    )


@pytest.fixture(scope="module")
def served(shared_workshop: Workshop) -> GatewayProcess:
    return shared_workshop.gateway({"STREAM_HEARTBEAT_SECONDS": "0.25"})


@pytest.fixture
async def world(served: GatewayProcess) -> AsyncIterator[World]:
    async with api_of(served) as api, AsyncExitStack() as stack:
        wanted = {"name": "confined", "scopes": ["stream", "subscriptions"], "library_ids": [MINE]}
        made = await api.call("POST", "/v1/keys", wanted)
        key = made["key"]
        async with client_for(served, key, None) as confined:
            token_of_key = (await Api(confined).call("POST", "/v1/stream-tokens", {}))["token"]
            await Api(confined).subscribe(SILENT, types=["never"], description=MINE)
        token_for_mine = (await api.call("POST", "/v1/stream-tokens", {"library_ids": [MINE]}))["token"]
        await api.subscribe(SILENT, types=["never"], description="all")
        await api.subscribe(SILENT, types=["never"], library_ids=[OTHER])
        for library, type_ in product((OTHER, MINE, OTHER), ("custom", "document.added")):
            await api.publish({"type": type_, "library_id": library, "data": {"library": library}})
        events = await api.events(type="*") + await api.events(type="gateway.*")
        by_library = {library: [each for each in events if each["library_id"] == library] for library in (MINE, OTHER)}
        own = [each for each in events if each["data"].get("description") == MINE]
        credentials: dict[str, tuple[str | None, str | None]] = {
            "key": (key, None),
            "token of the key": (None, token_of_key),
            "token for one library": (None, token_for_mine),
        }
        yield World(
            gateway=served,
            api=api,
            credentials=credentials,
            clients={
                name: await stack.enter_async_context(client_for(served, *credentials[name])) for name in credentials
            },
            visible=frozenset(each["id"] for each in by_library[MINE]),
            own_visible=frozenset(each["id"] for each in own),
            cursors={library: by_library[library][0]["cursor"] for library in by_library},
            head=max((each["cursor"] for each in events), key=lambda cursor: int(cursor.rpartition("-")[2])),
            hidden=by_library[OTHER][0]["id"],
        )


LIBRARIES: list[list[str]] = [[], [MINE], [OTHER], [MINE, OTHER], ["gateway"], [OTHER, "gateway"]]
TYPES: list[list[str]] = [[], ["*"], ["custom"], ["document.*"], ["gateway.*"], ["*", "gateway.*"]]
FILTERS: list[list[str]] = [[], ["true"], ['event.library_id == "other"'], ['event.data.library == "other"']]


def queries() -> list[list[tuple[str, str]]]:
    """Every combination of what a filter is made of."""
    names = ("library_id", "type", "filter")
    return [
        [(name, value) for name, values in zip(names, chosen, strict=True) for value in values]
        for chosen in product(LIBRARIES, TYPES, FILTERS)
    ]


async def over_sse(world: World, query: list[tuple[str, str]], name: str) -> set[str]:
    """What has come once the head of the log has gone by."""
    parser, seen = Parser(), set()
    async with world.clients[name].stream("GET", "/v1/events/stream", params=tuple(query), timeout=20) as answer:
        assert answer.status_code == 200, query
        async for piece in answer.aiter_raw():
            for message in parser.feed(piece):
                if message.type != "gateway.gap":
                    seen.add(json.loads(message.data)["id"])
            if parser.last_event_id == world.head:
                return seen
    raise AssertionError("the stream ended")


async def over_websocket(world: World, query: list[tuple[str, str]], name: str) -> set[str]:
    key, token = world.credentials[name]
    path = f"/v1/events/ws?{urlencode(query if token is None else [*query, ('token', token)])}"
    seen = set()
    async with opened(world.gateway.port, path, secret=key) as reader, asyncio.timeout(20):
        while True:
            message = await reader.read()
            if message["type"] == "event":
                seen.add(message["id"])
            if message["cursor"] == world.head:
                return seen


async def over_history(world: World, query: list[tuple[str, str]], name: str) -> set[str]:
    answer = await world.clients[name].get("/v1/events", params=[*query, ("page_size", "500")])
    assert answer.status_code == 200, (query, answer.text)
    page: Json = answer.json()
    return {event["id"] for event in page["data"]}


WAYS = {"sse": over_sse, "websocket": over_websocket, "history": over_history}


@pytest.mark.timeout(240)
async def test_no_filter_shows_anything_of_another_library_by_any_way_or_from_any_place(world: World) -> None:
    allowed = world.visible | world.own_visible
    found: dict[str, set[str]] = {}
    turns = asyncio.Semaphore(40)

    async def check(name: str, way: str, query: list[tuple[str, str]]) -> None:
        async with turns:
            seen = await WAYS[way](world, query, name)
        assert seen <= allowed, (name, way, query)
        found.setdefault(f"{name} {way}", set()).update(seen)

    places = {
        "sse": [[("since", PAST)], [("last_event_id", world.cursors[OTHER])], [("last_event_id", "another-7")]],
        "websocket": [[("since", PAST)], [("after", world.cursors[OTHER])], [("after", "another-7")]],
        "history": [[], [("since", PAST)], [("after", world.cursors[OTHER])], [("order", "asc")]],
    }
    asked = [
        check(name, way, [*query, *place])
        for name, (key, _) in world.credentials.items()
        for way in places
        if way != "history" or key is not None
        for number, query in enumerate(queries())
        # Every filter by every credential and way, each from one of the places in turn.
        for place in [places[way][number % len(places[way])]]
    ]
    await asyncio.gather(*asked)
    assert set(found) >= {f"{name} {way}" for name in world.credentials for way in ("sse", "websocket")}
    for seen in found.values():
        assert seen == allowed, "and what is theirs is not kept from them"


@pytest.mark.parametrize("name", ["key", "token of the key", "token for one library"])
async def test_what_is_published_from_now_on_is_not_shown_either(world: World, name: str) -> None:
    key, token = world.credentials[name]
    path = "/v1/events/ws?library_id=mine&library_id=other" + ("" if token is None else f"&token={token}")
    async with opened(world.gateway.port, path, secret=key) as reader:
        await reader.read()
        await world.api.publish({"type": "custom", "library_id": OTHER, "data": {}})
        mine = await world.api.publish({"type": "custom", "library_id": MINE, "data": {}})
        await reader.until_events(1)
        assert [message["id"] for message in reader.messages if message["type"] == "event"] == [mine]


@pytest.mark.parametrize("path", ["/v1/libraries/other/events/stream", "/v1/events/{hidden}", "/v1/libraries/other/ws"])
async def test_another_library_is_not_there(world: World, path: str) -> None:
    path = path.format(hidden=world.hidden)
    for name, (key, token) in world.credentials.items():
        if path.endswith("/ws"):
            query = "" if token is None else f"?token={token}"
            with pytest.raises(InvalidStatus) as refusal:
                async with opened(world.gateway.port, path + query, secret=key):
                    pass
            status = refusal.value.response.status_code
        else:
            status = (await world.clients[name].get(path)).status_code
        assert status == (401 if key is None and path.startswith("/v1/events/") else 404)


async def test_a_page_token_of_an_unconfined_key_opens_nothing(world: World) -> None:
    page = await world.api.call("GET", "/v1/events", page_size="2", order="asc")
    query = {"page_size": "2", "order": "asc", "page_token": page["next_page_token"]}
    answer = await world.clients["key"].get("/v1/events", params=query)
    if answer.status_code == 200:
        assert {event["library_id"] for event in answer.json()["data"]} <= {MINE}
    else:
        assert answer.status_code == 422
