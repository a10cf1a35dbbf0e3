"""Replays as people ask for them, watch them, and stop them."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from gateway.events import Cursor
from gateway.keys import Scope
from gateway.replay import AT_MOST
from tests.builders import a_draft
from tests.http.conftest import START, Api
from webhooks.deliveries import DeliveryStatus

SINCE = {"since": "2025-10-27T06:00:00Z"}


@pytest.fixture
async def owner(api: Api) -> httpx.AsyncClient:
    return await api.client(Scope.SUBSCRIPTIONS)


async def subscribed(api: Api, client: httpx.AsyncClient, **fields: Any) -> str:
    """The path of a new subscription's replays."""
    made = (await client.post("/v1/subscriptions", json={"url": "https://example.com", **fields})).json()
    api.replay_store.active[made["id"]] = True
    return f"/v1/subscriptions/{made['id']}/replay"


async def published(api: Api) -> None:
    """Three events, a minute apart."""
    for type_, library_id in (("document.added", "acme"), ("document.deleted", "acme"), ("custom", "beta")):
        await api.log.append([[a_draft(type=type_, library_id=library_id)]])
        api.pass_time(timedelta(minutes=1))


async def test_a_replay_is_counted_and_then_under_way(api: Api, owner: httpx.AsyncClient) -> None:
    await published(api)
    path = await subscribed(api, owner, types=["document.*"])

    dry = await owner.post(path, json={**SINCE, "dry_run": True})
    assert (dry.status_code, dry.json()) == (200, {"matched": 2})
    assert api.replay_store.kept == {}

    begun = await owner.post(path, json={**SINCE, "max_per_second": 0.5})
    assert (begun.status_code, begun.json()) == (202, {"id": "rpl_0000", "matched": 2})
    replay = api.replay_store.kept["rpl_0000"].replay
    assert replay.max_per_second == 0.5
    assert replay.selection is not None
    assert replay.selection.own.types == frozenset({"document.*"})


@pytest.mark.parametrize(
    ("asked", "matched"),
    [
        ({}, 3),
        ({"since": "2025-10-27T06:02:00Z"}, 2),
        ({"since": "2025-10-27T06:01:30+00:00", "until": "2025-10-27T06:03:00Z"}, 1),
        ({"until": "2025-10-27T06:00:30Z"}, 0),
        ({"since": "2040-01-01T00:00:00Z"}, 0),
        ({"until": None, "types": None, "library_ids": None, "max_per_second": None}, 3),
        ({"types": ["document.*"]}, 2),
        ({"types": ["document.deleted", "custom"], "library_ids": ["acme"]}, 1),
        ({"types": ["gateway.*"]}, 0),
        ({"only": "undelivered"}, 1),
    ],
)
async def test_it_is_of_what_was_asked_for(
    api: Api, owner: httpx.AsyncClient, asked: dict[str, Any], matched: int
) -> None:
    await published(api)
    path = await subscribed(api, owner)
    subscription_id = path.split("/")[3]
    for cursor, status in enumerate((DeliveryStatus.PENDING, DeliveryStatus.DELIVERED, DeliveryStatus.DEAD), 1):
        api.replay_store.live[subscription_id, cursor] = status

    answer = await owner.post(path, json={**SINCE, **asked, "dry_run": True})

    assert (answer.status_code, answer.json()) == (200, {"matched": matched})


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/since"),
        ({"since": None}, "/since"),
        ({"since": "yesterday"}, "/since"),
        ({"since": "2025-10-27"}, "/since"),
        ({**SINCE, "until": "now"}, "/until"),
        ({**SINCE, "types": []}, "/types"),
        ({**SINCE, "types": ["*.added"]}, "/types/0"),
        ({**SINCE, "library_ids": ["a", "b c"]}, "/library_ids/1"),
        ({**SINCE, "only": "failed"}, "/only"),
        ({**SINCE, "dry_run": 1}, "/dry_run"),
        ({**SINCE, "max_per_second": 0}, "/max_per_second"),
        ({**SINCE, "max_per_second": "1"}, "/max_per_second"),
        ({**SINCE, "filter": "true"}, "/filter"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_begins(
    api: Api, owner: httpx.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    answer = await owner.post(await subscribed(api, owner), json=body)

    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid")
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert api.replay_store.kept == {}


async def test_a_library_outside_those_of_the_key_is_refused(api: Api) -> None:
    await published(api)
    client = await api.client(Scope.SUBSCRIPTIONS, libraries=["acme", "beta"])
    path = await subscribed(api, client)

    refused = await client.post(path, json={**SINCE, "library_ids": ["acme", "other"]})
    assert refused.status_code == 403
    assert refused.json()["errors"][0]["pointer"] == "/library_ids/1"
    assert (await client.post(path, json={**SINCE, "library_ids": ["beta"]})).json()["matched"] == 1


async def test_a_subscription_never_gets_more_of_the_past_than_it_is_confined_to(
    api: Api, owner: httpx.AsyncClient
) -> None:
    await published(api)
    path = await subscribed(api, await api.client(Scope.SUBSCRIPTIONS, libraries=["beta"]))

    assert (await owner.post(path, json={**SINCE, "dry_run": True})).json() == {"matched": 1}
    assert (await owner.post(path, json={**SINCE, "library_ids": ["acme"], "dry_run": True})).json() == {"matched": 0}


async def test_only_those_who_see_a_subscription_may_replay_to_it(api: Api, owner: httpx.AsyncClient) -> None:
    path = await subscribed(api, owner)
    confined = await api.client(Scope.SUBSCRIPTIONS, libraries=["acme"])
    publisher = await api.client(Scope.PUBLISH, Scope.STREAM)

    assert (await confined.post(path, json=SINCE)).status_code == 404
    assert (await publisher.post(path, json=SINCE)).status_code == 403
    assert (await owner.post("/v1/subscriptions/sub_unknown/replay", json=SINCE)).status_code == 404
    assert (await (await api.client()).post(path, json=SINCE)).status_code == 401


async def test_one_that_is_deleted_while_it_is_counted_is_not_found(api: Api, owner: httpx.AsyncClient) -> None:
    path = await subscribed(api, owner)
    api.replay_store.active.clear()

    assert (await owner.post(path, json=SINCE)).status_code == 404


async def test_more_than_it_may_have_at_a_time_are_a_conflict(api: Api, owner: httpx.AsyncClient) -> None:
    path = await subscribed(api, owner)
    for _ in range(AT_MOST):
        assert (await owner.post(path, json=SINCE)).status_code == 202

    refused = await owner.post(path, json=SINCE)

    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/conflict")
    assert (await owner.post(path, json={**SINCE, "dry_run": True})).status_code == 200


async def test_the_moment_it_was_asked_for_is_its_end(api: Api, owner: httpx.AsyncClient) -> None:
    await published(api)
    await owner.post(await subscribed(api, owner), json=SINCE)
    replay = api.replay_store.kept["rpl_0000"].replay

    assert replay.stretch is not None
    assert (replay.stretch.after, replay.stretch.last) == (Cursor(0), Cursor(3))
    assert api.moment > START
