"""Deliveries and dead letters, as people see and steer them."""

from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from gateway.keys import Scope
from gateway.ports.desk import DeliveryRecord
from tests.http.conftest import START, Api
from webhooks.deliveries import Attempt, DeliveryStatus

PENDING = DeliveryRecord(
    id="dlv_1",
    event_id="evt_1",
    subscription_id="sub_1",
    library_id="acme",
    type="document.added",
    status=DeliveryStatus.PENDING,
    reason=None,
    attempt_count=1,
    created_at=START,
    due_at=START + timedelta(seconds=5),
    settled_at=None,
    replay_id=None,
    libraries=frozenset({"acme", "beta"}),
)
DELIVERED = replace(PENDING, id="dlv_2", status=DeliveryStatus.DELIVERED, due_at=None, settled_at=START)
DEAD = replace(PENDING, id="dlv_3", status=DeliveryStatus.DEAD, reason="exhausted", due_at=None, settled_at=START)
ATTEMPT = Attempt(
    number=1,
    started_at=START,
    duration=timedelta(seconds=15),
    connect=timedelta(milliseconds=2),
    error="timed out after 15 s",
    request_headers={"webhook-id": "evt_1"},
    response_body=b"caf\xc3\xa9 \xff",
)


@pytest.fixture
async def owner(api: Api) -> httpx.AsyncClient:
    for record in (PENDING, DELIVERED, DEAD):
        api.desk.kept[record.id] = record
    api.desk.made["dlv_1"] = [ATTEMPT]
    return await api.client(Scope.SUBSCRIPTIONS)


async def test_deliveries_are_listed_newest_first_without_their_attempts(owner: httpx.AsyncClient) -> None:
    first = (await owner.get("/v1/deliveries?page_size=2")).json()
    second = (await owner.get(f"/v1/deliveries?page_size=2&page_token={first['next_page_token']}")).json()

    assert [row["id"] for row in first["data"] + second["data"]] == ["dlv_3", "dlv_2", "dlv_1"]
    assert second["next_page_token"] is None
    assert first["data"][0] == {
        "id": "dlv_3",
        "event_id": "evt_1",
        "subscription_id": "sub_1",
        "library_id": "acme",
        "type": "document.added",
        "status": "dead",
        "reason": "exhausted",
        "attempt_count": 1,
        "created_at": "2025-10-27T06:01:00.000000Z",
        "due_at": None,
        "settled_at": "2025-10-27T06:01:00.000000Z",
        "replay_id": None,
    }


async def test_every_question_reaches_the_desk(api: Api, owner: httpx.AsyncClient) -> None:
    await owner.get(
        "/v1/deliveries?subscription_id=s&event_id=e&status=pending&library_id=l&type=t"
        "&since=2025-10-27T06:00:00Z&until=2025-10-27T07:00:00Z&page_size=7"
    )

    (query,) = api.desk.queries
    assert (query.subscription_id, query.event_id, query.library_id, query.type) == ("s", "e", "l", "t")
    assert (query.status, query.limit) == (DeliveryStatus.PENDING, 7)
    assert (query.since, query.until) == (START - timedelta(minutes=1), START + timedelta(minutes=59))


async def test_a_wrong_status_is_named(owner: httpx.AsyncClient) -> None:
    answer = await owner.get("/v1/deliveries?status=lost")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/status"


async def test_one_delivery_comes_with_its_attempts(owner: httpx.AsyncClient) -> None:
    (attempt,) = (await owner.get("/v1/deliveries/dlv_1")).json()["attempts"]

    assert attempt == {
        "number": 1,
        "started_at": "2025-10-27T06:01:00.000000Z",
        "duration_ms": 15_000,
        "connect_ms": 2,
        "first_byte_ms": None,
        "status_code": None,
        "error": "timed out after 15 s",
        "request_headers": {"webhook-id": "evt_1"},
        "response_headers": {},
        "response_body": "café \ufffd",
    }


async def test_a_retry_is_due_now_and_wakes_its_lane_but_not_once_delivered(api: Api, owner: httpx.AsyncClient) -> None:
    retried = await owner.post("/v1/deliveries/dlv_3/retry")
    delivered = await owner.post("/v1/deliveries/dlv_2/retry")

    assert retried.status_code == 202
    assert retried.json()["due_at"] == "2025-10-27T06:01:00.000000Z"
    assert api.woken == ["sub_1"]
    assert delivered.status_code == 409


async def test_only_what_is_pending_can_be_cancelled_and_its_lane_lets_it_go(
    api: Api, owner: httpx.AsyncClient
) -> None:
    cancelled = await owner.post("/v1/deliveries/dlv_1/cancel")

    assert cancelled.status_code == 200
    assert api.changed == ["sub_1"]
    assert cancelled.json()["status"] == "cancelled"
    assert (await owner.post("/v1/deliveries/dlv_1/cancel")).status_code == 409


async def test_dead_letters_are_the_dead_deliveries_and_can_be_forgotten(owner: httpx.AsyncClient) -> None:
    assert [row["id"] for row in (await owner.get("/v1/dead-letters")).json()["data"]] == ["dlv_3"]

    assert (await owner.delete("/v1/dead-letters/dlv_1")).status_code == 404
    assert (await owner.delete("/v1/dead-letters/dlv_3")).status_code == 204

    assert (await owner.get("/v1/dead-letters")).json()["data"] == []


async def test_dead_letters_are_redelivered_by_id_after_a_dry_run(api: Api, owner: httpx.AsyncClient) -> None:
    body = {"ids": ["dlv_3", "dlv_3", "dlv_1"]}

    dry = await owner.post("/v1/dead-letters/redeliver", json={**body, "dry_run": True})
    done = await owner.post("/v1/dead-letters/redeliver", json=body)

    assert (dry.status_code, dry.json()) == (200, {"matched": 1})
    assert (done.status_code, done.json()) == (202, {"matched": 1, "replay_id": "rpl_0"})
    assert api.desk.redelivered[0].ids == ("dlv_3", "dlv_1")
    progress = await owner.get("/v1/replays/rpl_0")
    assert progress.json()["pending"] == 1
    assert (progress.json()["status"], progress.json()["created"]) == ("running", 1)
    assert api.changed == []
    assert (await owner.delete("/v1/replays/rpl_0")).status_code == 204
    assert api.changed == ["sub_1"]
    assert (await owner.get("/v1/replays/rpl_0")).json()["status"] == "stopped"


async def test_all_dead_letters_of_a_subscription_are_redelivered(api: Api, owner: httpx.AsyncClient) -> None:
    made = (await owner.post("/v1/subscriptions", json={"url": "https://example.com"})).json()
    api.desk.kept["dlv_3"] = replace(DEAD, subscription_id=made["id"])

    done = await owner.post(
        "/v1/dead-letters/redeliver",
        json={"subscription_id": made["id"], "since": "2025-10-27T06:00:00Z", "types": ["document.*"]},
    )

    assert done.json()["matched"] == 1
    assert api.desk.redelivered[0].types == frozenset({"document.*"})
    assert api.woken == [made["id"]]


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({}, 422, ""),
        ({"ids": ["a"], "subscription_id": "s"}, 422, ""),
        ({"ids": []}, 422, "/ids"),
        ({"ids": ["a b"]}, 422, "/ids/0"),
        ({"ids": ["a"], "since": "2025-10-27T06:00:00Z"}, 422, "/since"),
        ({"subscription_id": "s", "since": "now"}, 422, "/since"),
        ({"subscription_id": "s", "types": []}, 422, "/types"),
        ({"subscription_id": "sub_unknown"}, 404, None),
        ({"ids": ["a"], "dry_run": "yes"}, 422, "/dry_run"),
    ],
)
async def test_a_redelivery_of_nothing_definite_is_refused(
    api: Api, owner: httpx.AsyncClient, body: dict[str, object], status: int, pointer: str | None
) -> None:
    answer = await owner.post("/v1/dead-letters/redeliver", json=body)

    assert answer.status_code == status, answer.text
    if pointer is not None:
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert api.desk.redelivered == []


async def test_a_confined_key_sees_only_deliveries_of_subscriptions_it_holds_wholly(
    api: Api, owner: httpx.AsyncClient
) -> None:
    await owner.post("/v1/dead-letters/redeliver", json={"ids": ["dlv_3"]})
    holder = await api.client(Scope.SUBSCRIPTIONS, libraries=["acme", "beta"])
    narrow = await api.client(Scope.SUBSCRIPTIONS, libraries=["acme"])

    assert (await holder.get("/v1/deliveries/dlv_1")).status_code == 200
    assert (await narrow.get("/v1/deliveries")).json()["data"] == []
    for method, path in [
        ("GET", "/v1/deliveries/dlv_1"),
        ("POST", "/v1/deliveries/dlv_1/retry"),
        ("POST", "/v1/deliveries/dlv_1/cancel"),
        ("DELETE", "/v1/dead-letters/dlv_3"),
        ("GET", "/v1/replays/rpl_0"),
        ("DELETE", "/v1/replays/rpl_0"),
    ]:
        assert (await narrow.request(method, path)).status_code == 404, path
    dry = await narrow.post("/v1/dead-letters/redeliver", json={"ids": ["dlv_3"], "dry_run": True})
    assert dry.json() == {"matched": 0}
