"""Subscriptions: what may be asked for, who sees them, and that nothing secret comes back."""

import base64
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from gateway.keys import Scope
from tests.http.conftest import Api
from webhooks.endpoints import Status

URL = "https://example.com/hooks"
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
DEFAULTS: dict[str, Any] = {
    "library_ids": None,
    "types": None,
    "filter": None,
    "description": "",
    "headers": {},
    "signature": "v1",
    "ordering": "none",
    "max_in_flight": 8,
    "max_per_second": None,
    "timeout_seconds": 15,
    "retry_schedule": None,
    "payload": "standard",
    "metadata": {},
    "status": "active",
    "disabled_reason": None,
}


@pytest.fixture
async def owner(api: Api) -> httpx.AsyncClient:
    return await api.client(Scope.SUBSCRIPTIONS)


async def _made(client: httpx.AsyncClient, **fields: object) -> dict[str, Any]:
    answer = await client.post("/v1/subscriptions", json={"url": URL, **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_a_url_is_enough_and_the_secret_is_shown_once(owner: httpx.AsyncClient) -> None:
    made = await _made(owner)

    assert made.pop("secret").startswith("whsec_")
    assert made.pop("id").startswith("sub_")
    assert made == {"url": URL, **DEFAULTS, "created_at": "2025-10-27T06:01:00.000000Z", "created_by": "key_0000"}
    (listed,) = (await owner.get("/v1/subscriptions")).json()["data"]
    read = (await owner.get(f"/v1/subscriptions/{listed['id']}")).json()
    assert listed == read == {**made, "id": listed["id"]}


async def test_everything_that_was_asked_for_is_kept_and_header_values_are_not_answered(
    api: Api, owner: httpx.AsyncClient
) -> None:
    wanted = {
        "library_ids": ["a", "b"],
        "types": ["document.*", "search.performed"],
        "filter": 'event.data.priority == "high"',
        "description": "for the index",
        "headers": {"X-Token": "s3cret"},
        "ordering": "library",
        "max_in_flight": 1,
        "max_per_second": 2.5,
        "timeout_seconds": 60,
        "retry_schedule": [1, 2.5],
        "payload": "cloudevents",
        "metadata": {"team": {"n": [1, None]}},
    }

    made = await _made(owner, **wanted, secret=SECRET)

    assert made["secret"] == SECRET
    assert {name: made[name] for name in wanted} == {**wanted, "headers": {"X-Token": None}}
    kept = api.subscriptions.kept[made["id"]]
    assert kept.headers == {"X-Token": "s3cret"}
    assert "s3cret" not in repr(kept)
    assert "s3cret" not in (await owner.get("/v1/subscriptions")).text


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"url": None}, "/url"),
        ({"url": ""}, "/url"),
        ({"url": "ftp://example.com"}, "/url"),
        ({"url": "https://user:pass@example.com"}, "/url"),
        ({"url": "http://127.0.0.1/"}, "/url"),
        ({"url": "http://2130706433/"}, "/url"),
        ({"url": "http://[::1]/"}, "/url"),
        ({"url": "https://example.com/" + "a" * 2048}, "/url"),
        ({"library_ids": []}, "/library_ids"),
        ({"library_ids": "a"}, "/library_ids"),
        ({"library_ids": ["a", 3]}, "/library_ids/1"),
        ({"types": ["ok", "No"]}, "/types/1"),
        ({"filter": "1 +"}, "/filter"),
        ({"filter": 3}, "/filter"),
        ({"description": "x" * 2001}, "/description"),
        ({"headers": {"Host": "x"}}, "/headers/Host"),
        ({"headers": {"content-type": "x"}}, "/headers/content-type"),
        ({"headers": {"Webhook-Id": "x"}}, "/headers/Webhook-Id"),
        ({"headers": {"a b": "x"}}, "/headers/a b"),
        ({"headers": {"x/y~": ""}}, "/headers/x~1y~0"),
        ({"headers": {"X-A": "1\r\nX-B: 2"}}, "/headers/X-A"),
        ({"headers": {"X-A": 1}}, "/headers/X-A"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "/headers/x-a"),
        ({"signature": "v2"}, "/signature"),
        ({"ordering": "strict"}, "/ordering"),
        ({"max_in_flight": 0}, "/max_in_flight"),
        ({"max_in_flight": 1.5}, "/max_in_flight"),
        ({"max_per_second": 0}, "/max_per_second"),
        ({"timeout_seconds": 61}, "/timeout_seconds"),
        ({"timeout_seconds": True}, "/timeout_seconds"),
        ({"retry_schedule": [-1]}, "/retry_schedule/0"),
        ({"payload": "xml"}, "/payload"),
        ({"metadata": []}, "/metadata"),
        ({"metadata": {"a": "x" * 20_000}}, "/metadata"),
        ({"secret": "hello"}, "/secret"),
        ({"secret": "whsec_c2hvcnQ="}, "/secret"),
        ({"secret": "whsk_" + base64.b64encode(b"k" * 32).decode()}, "/secret"),
        ({"signature": "v1a", "secret": SECRET}, "/secret"),
        ({"status": "paused"}, "/status"),
        ({"colour": "red"}, "/colour"),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_is_stored(
    api: Api, owner: httpx.AsyncClient, fields: dict[str, Any], pointer: str
) -> None:
    answer = await owner.post("/v1/subscriptions", json={"url": URL, **fields})

    assert answer.status_code == 422, answer.text
    assert pointer in [fault["pointer"] for fault in answer.json()["errors"]]
    assert api.subscriptions.kept == {}


async def test_a_secret_that_is_refused_is_not_repeated(owner: httpx.AsyncClient) -> None:
    answer = await owner.post("/v1/subscriptions", json={"url": URL, "secret": "whsec_hunter2hunter2"})

    assert answer.status_code == 422
    assert "hunter2" not in answer.text


async def test_a_patch_changes_what_it_names_and_null_goes_back_to_the_default(
    api: Api, owner: httpx.AsyncClient
) -> None:
    made = await _made(
        owner, types=["a"], description="x", headers={"X-A": "1", "X-B": "2"}, metadata={"a": {"b": 1, "c": 2}}
    )

    changed = await owner.patch(
        f"/v1/subscriptions/{made['id']}",
        json={"types": None, "description": None, "headers": {"x-a": None, "X-C": "3"}, "metadata": {"a": {"b": None}}},
    )

    assert changed.status_code == 200, changed.text
    assert changed.json()["types"] is None
    assert changed.json()["description"] == ""
    assert changed.json()["metadata"] == {"a": {"c": 2}}
    assert changed.json()["headers"] == {"X-B": None, "X-C": None}
    assert api.subscriptions.kept[made["id"]].headers == {"X-B": "2", "X-C": "3"}
    assert api.subscriptions.notices == ["gateway.subscription.updated"]
    assert api.changed == [made["id"]]


@pytest.mark.parametrize(
    ("patch", "pointer"),
    [
        ([], ""),
        ({"url": None}, "/url"),
        ({"url": "http://10.0.0.1"}, "/url"),
        ({"types": []}, "/types"),
        ({"headers": {"te": "x"}}, "/headers/te"),
        ({"headers": None, "id": "sub_2"}, "/id"),
        ({"secret": SECRET}, "/secret"),
    ],
)
async def test_a_patch_that_would_leave_nonsense_changes_nothing(
    api: Api, owner: httpx.AsyncClient, patch: object, pointer: str
) -> None:
    made = await _made(owner)
    before = api.subscriptions.kept[made["id"]]

    answer = await owner.patch(f"/v1/subscriptions/{made['id']}", json=patch)

    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert api.subscriptions.kept[made["id"]] is before


async def test_a_deleted_subscription_is_gone(api: Api, owner: httpx.AsyncClient) -> None:
    made = await _made(owner)

    deleted = await owner.delete(f"/v1/subscriptions/{made['id']}")

    assert (deleted.status_code, deleted.content) == (204, b"")
    assert api.changed == [made["id"]]
    for method in ("GET", "PATCH", "DELETE"):
        assert (await owner.request(method, f"/v1/subscriptions/{made['id']}", json={})).status_code == 404


async def test_pausing_and_resuming_counts_the_idle_time_and_wakes_the_lane(api: Api, owner: httpx.AsyncClient) -> None:
    made = await _made(owner)
    path = f"/v1/subscriptions/{made['id']}"

    assert (await owner.post(f"{path}/pause")).json()["status"] == "paused"
    api.pass_time(timedelta(hours=1))
    assert (await owner.post(f"{path}/pause")).status_code == 200
    resumed = await owner.post(f"{path}/resume")
    await owner.post(f"{path}/resume")

    assert resumed.status_code == 200
    assert resumed.json()["status"] == "active"
    kept = api.subscriptions.kept[made["id"]]
    assert (kept.status, kept.idle, kept.idle_since) == (Status.ACTIVE, timedelta(hours=1), None)
    assert api.subscriptions.notices == ["gateway.subscription.updated", "gateway.subscription.resumed"]
    assert api.woken


async def test_pausing_a_disabled_one_keeps_the_moment_since_which_it_is_idle(
    api: Api, owner: httpx.AsyncClient
) -> None:
    made = await _made(owner)
    since = api.moment - timedelta(days=1)
    disabled = replace(
        api.subscriptions.kept[made["id"]], status=Status.DISABLED, disabled_reason="gone", idle_since=since
    )
    api.subscriptions.kept[made["id"]] = disabled

    paused = (await owner.post(f"/v1/subscriptions/{made['id']}/pause")).json()

    assert (paused["status"], paused["disabled_reason"]) == ("paused", None)
    assert api.subscriptions.kept[made["id"]].idle_since == since


# --- who sees what ---------------------------------------------------------------------------------------------------


async def test_a_confined_key_names_only_its_own_libraries_and_sees_only_what_it_holds_wholly(
    api: Api, owner: httpx.AsyncClient
) -> None:
    confined = await api.client(Scope.SUBSCRIPTIONS, libraries=["a", "b"])
    narrow = await api.client(Scope.SUBSCRIPTIONS, libraries=["a"])
    outside = await confined.post("/v1/subscriptions", json={"url": URL, "library_ids": ["a", "c"]})
    assert outside.status_code == 403
    assert outside.json()["errors"][0]["pointer"] == "/library_ids/1"
    its = await _made(confined, library_ids=["a"])
    unconfined = await _made(owner)

    assert api.subscriptions.kept[its["id"]].libraries == frozenset("ab")
    assert [each["id"] for each in (await confined.get("/v1/subscriptions")).json()["data"]] == [its["id"]]
    assert (await narrow.get("/v1/subscriptions")).json()["data"] == []
    assert len((await owner.get("/v1/subscriptions")).json()["data"]) == 2
    for client, id_ in ((narrow, its["id"]), (confined, unconfined["id"])):
        path = f"/v1/subscriptions/{id_}"
        for method, url in [
            ("GET", path),
            ("PATCH", path),
            ("DELETE", path),
            ("POST", f"{path}/pause"),
            ("POST", f"{path}/resume"),
            ("GET", f"{path}/secret"),
            ("GET", f"{path}/public-key"),
            ("POST", f"{path}/rotate-secret"),
            ("POST", f"{path}/test"),
        ]:
            assert (await client.request(method, url)).status_code == 404, url


async def test_whoever_changes_it_a_subscription_stays_within_the_libraries_it_was_made_for(
    api: Api, owner: httpx.AsyncClient
) -> None:
    confined = await api.client(Scope.SUBSCRIPTIONS, libraries=["a"])
    made = await _made(confined)

    by_confined = await confined.patch(f"/v1/subscriptions/{made['id']}", json={"library_ids": ["b"]})
    by_owner = await owner.patch(f"/v1/subscriptions/{made['id']}", json={"library_ids": ["b"]})

    assert (by_confined.status_code, by_owner.status_code) == (403, 422)
    assert by_owner.json()["errors"][0]["pointer"] == "/library_ids/0"


async def test_a_confined_key_has_a_hundred_at_most(api: Api) -> None:
    confined = await api.client(Scope.SUBSCRIPTIONS, libraries=["a"])
    for _ in range(100):
        await _made(confined)

    one_more = await confined.post("/v1/subscriptions", json={"url": URL})

    assert one_more.status_code == 409


# --- secrets ---------------------------------------------------------------------------------------------------------


async def test_a_secret_is_changed_with_a_grace_in_which_both_sign(api: Api, owner: httpx.AsyncClient) -> None:
    made = await _made(owner)
    path = f"/v1/subscriptions/{made['id']}"
    assert (await owner.get(f"{path}/secret")).json() == {"secret": made["secret"]}

    rotated = await owner.post(f"{path}/rotate-secret")
    own = await owner.post(f"{path}/rotate-secret", json={"grace_seconds": 60, "secret": SECRET})

    assert rotated.status_code == own.status_code == 200
    assert own.json() == {"secret": SECRET}
    newest, second, oldest = api.subscriptions.kept[made["id"]].secrets
    assert (newest.text, second.text, oldest.text) == (SECRET, rotated.json()["secret"], made["secret"])
    assert newest.expires_at is None
    assert second.expires_at == oldest.expires_at == api.moment + timedelta(seconds=60)
    api.pass_time(timedelta(seconds=60))
    await owner.post(f"{path}/rotate-secret")
    assert len(api.subscriptions.kept[made["id"]].secrets) == 2


@pytest.mark.parametrize(
    ("body", "pointer"), [({"grace_seconds": -1}, "/grace_seconds"), ({"secret": "x"}, "/secret"), ({"x": 1}, "/x")]
)
async def test_a_rotation_that_makes_no_sense_is_refused(
    owner: httpx.AsyncClient, body: dict[str, object], pointer: str
) -> None:
    made = await _made(owner)

    answer = await owner.post(f"/v1/subscriptions/{made['id']}/rotate-secret", json=body)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_with_v1a_the_public_key_is_answered_and_the_private_half_never(
    api: Api, owner: httpx.AsyncClient
) -> None:
    made = await _made(owner, signature="v1a")
    path = f"/v1/subscriptions/{made['id']}"

    public = await owner.get(f"{path}/public-key")

    assert made["secret"] is None
    assert public.json()["public_key"].startswith("whpk_")
    assert (await owner.get(f"{path}/secret")).status_code == 409
    assert (await owner.post(f"{path}/rotate-secret")).json() == {"secret": None}
    assert len((await owner.get(f"{path}/public-key")).json()["valid"]) == 2
    back = await owner.patch(path, json={"signature": "v1"})
    assert back.json()["signature"] == "v1"
    assert (await owner.get(f"{path}/secret")).json()["secret"].startswith("whsec_")
    assert (await owner.get(f"{path}/public-key")).status_code == 409


async def test_a_test_answers_the_attempt_as_it_went(owner: httpx.AsyncClient) -> None:
    made = await _made(owner)

    answer = await owner.post(f"/v1/subscriptions/{made['id']}/test")

    assert answer.status_code == 200
    assert answer.json()["status_code"] == 204
    assert answer.json()["duration_ms"] == 12.5
