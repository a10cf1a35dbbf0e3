"""The registry of event types, and what publishers are told when their data does not fit."""

from typing import Any

import httpx
import pytest

from gateway.event_types import BUILT_IN
from gateway.keys import Scope
from tests.http.conftest import Api

PAID = {
    "description": "An order was paid.",
    "schema": {"required": ["n"], "properties": {"n": {"type": "integer"}}},
    "validation": "enforce",
}


def paid(**data: Any) -> dict[str, Any]:
    return {"type": "order.paid", "library_id": "acme", "data": data}


async def put(client: httpx.AsyncClient, name: str, body: Any) -> httpx.Response:
    return await client.put(f"/v1/event-types/{name}", json=body)


async def test_the_built_in_types_are_there_from_the_start_and_checked_by_nobody(admin: httpx.AsyncClient) -> None:
    listed = (await admin.get("/v1/event-types")).json()

    assert [row["type"] for row in listed["data"]] == list(BUILT_IN)
    assert listed["next_page_token"] is None
    assert listed["data"][0].keys() == {"type", "description", "schema", "validation", "built_in", "updated_at"}
    assert {(row["validation"], row["built_in"], row["updated_at"]) for row in listed["data"]} == {("off", True, None)}


async def test_one_that_is_set_is_answered_and_listed_first(admin: httpx.AsyncClient) -> None:
    answered = await put(admin, "order.paid", PAID)

    assert answered.status_code == 200
    assert {**PAID, "type": "order.paid", "built_in": False}.items() <= answered.json().items()
    assert (await admin.get("/v1/event-types")).json()["data"][0] == answered.json()


async def test_lists_are_read_page_by_page(admin: httpx.AsyncClient) -> None:
    await put(admin, "order.paid", PAID)
    seen, token = [], None
    while True:
        query = {"page_size": 2} | ({"page_token": token} if token else {})
        page = (await admin.get("/v1/event-types", params=query)).json()
        seen += [row["type"] for row in page["data"]]
        if (token := page["next_page_token"]) is None:
            break
    assert seen == ["order.paid", *BUILT_IN]


async def test_a_built_in_one_keeps_its_schema_unless_another_is_given(admin: httpx.AsyncClient) -> None:
    kept = (await put(admin, "document.added", {"validation": "warn"})).json()
    assert (kept["schema"], kept["description"]) == (
        BUILT_IN["document.added"].schema,
        BUILT_IN["document.added"].description,
    )
    assert (await put(admin, "document.added", {"schema": {"required": ["x"]}})).json()["schema"] == {"required": ["x"]}
    assert (await put(admin, "document.added", {"schema": None})).json()["schema"] is None


async def test_data_that_does_not_fit_is_a_422_that_names_the_place_and_nothing_is_stored(
    admin: httpx.AsyncClient,
) -> None:
    await put(admin, "order.paid", PAID)

    single = await admin.post("/v1/events", json=paid(n="x"))
    batch = await admin.post("/v1/events", json=[paid(n=1), paid(), paid(n="x")])
    batch_of_one = await admin.post("/v1/events", json=[paid(n="x")])

    assert (single.status_code, batch.status_code, batch_of_one.status_code) == (422, 422, 422)
    assert single.json()["errors"] == [{"pointer": "/data/n", "detail": 'is not of type "integer"'}]
    assert [error["pointer"] for error in batch.json()["errors"]] == ["/1/data", "/2/data/n"]
    assert batch_of_one.json()["errors"][0]["pointer"] == "/0/data/n"
    assert (await admin.get("/v1/events")).json()["data"] == []
    assert (await admin.post("/v1/events", json=paid(n=1))).status_code == 202


async def test_a_warning_lets_it_pass_and_off_lets_it_alone(api: Api, admin: httpx.AsyncClient) -> None:
    for validation in ("warn", "off"):
        await put(admin, "order.paid", {**PAID, "validation": validation})
        assert (await admin.post("/v1/events", json=paid(n="x"))).status_code == 202
    assert api.registry.share().extras["schema_warnings"] == 1


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"schema": {"properties": {"a": {"type": "objekt"}}}}, "/schema/properties/a/type"),
        ({"schema": {"$ref": "https://example.com/x.json"}}, "/schema/$ref"),
        ({"schema": "object"}, "/schema"),
        ({"schema": {"pattern": "("}}, "/schema/pattern"),
        ({"validation": "strict", "schema": {}}, "/validation"),
        ({"validation": "enforce"}, "/schema"),
        ({"validation": "warn", "schema": None}, "/schema"),
        ({"description": "x" * 2_001}, "/description"),
        ({"schemas": {}}, "/schemas"),
        ([], ""),
    ],
)
async def test_what_cannot_be_set_is_a_422_that_names_the_place(
    api: Api, admin: httpx.AsyncClient, body: Any, pointer: str
) -> None:
    refused = await put(admin, "order.paid", body)
    assert refused.status_code == 422
    assert any(error["pointer"].startswith(pointer) for error in refused.json()["errors"])
    assert api.event_types.kept == {}


@pytest.mark.parametrize(("name", "status"), [("gateway.ping", 422), ("gateway", 422), ("A", 404), ("a..b", 404)])
async def test_a_name_that_no_event_can_have_is_refused(admin: httpx.AsyncClient, name: str, status: int) -> None:
    assert (await put(admin, name, PAID)).status_code == status


async def test_readers_see_types_and_admins_set_them(api: Api) -> None:
    for scope in (Scope.STREAM, Scope.PUBLISH, Scope.SUBSCRIPTIONS):
        client = await api.client(scope, libraries=["acme"])
        listed = await client.get("/v1/event-types")
        assert listed.status_code == (200 if scope is Scope.STREAM else 403)
        assert (await put(client, "order.paid", PAID)).status_code == 403
    assert (await (await api.client()).get("/v1/event-types")).status_code == 401
