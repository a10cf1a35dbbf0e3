"""The contract as a document: complete, valid, and the one that is kept beside the code."""

import json
from typing import Any

import httpx
import jsonschema_rs
import pytest
from litestar import Litestar

from gateway.http import documenting, openapi
from gateway.http.auth import Requires
from gateway.http.operations import OPERATION
from tests.http.conftest import Api


@pytest.fixture(scope="module")
def app() -> Litestar:
    return openapi.described()


@pytest.fixture(scope="module")
def document(app: Litestar) -> dict[str, Any]:
    return documenting.document(app)


def test_the_committed_document_is_the_one_that_the_code_describes() -> None:
    written = openapi.FILE.read_text(encoding="utf-8")

    assert written == openapi.text(), "run: gateway openapi"


def test_every_route_describes_itself(app: Litestar) -> None:
    silent = [f"{method} {path}" for path, method, handler in documenting.routes(app) if OPERATION not in handler.opt]

    assert silent == []


def test_every_guard_is_told_of_and_takes_no_thread(app: Litestar, document: dict[str, Any]) -> None:
    guarded = [(path, method, handler) for path, method, handler in documenting.routes(app) if handler.resolve_guards()]
    for path, method, handler in guarded:
        # Litestar wraps what is no coroutine, to call it in another thread.
        assert all(isinstance(guard, Requires) for guard in handler.resolve_guards())
        told = document["paths"][path.replace(":str", "")][method.lower()]["description"]
        assert told.count("Needs the scope") == 1, f"{method} {path}"
    assert len(guarded) > 30


def test_every_operation_says_what_can_go_wrong(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            answers = operation["responses"]
            assert "500" in answers, path
            assert ("401" in answers) == ("403" in answers) == (operation["security"] != []), path
            assert ("413" in answers) == ("requestBody" in operation), f"{method} {path}"
            if "{" in path and method != "post":
                assert "404" in answers, path


def test_an_operation_says_which_scope_it_needs(document: dict[str, Any]) -> None:
    assert document["paths"]["/v1/events"]["post"]["description"].endswith("\n\nNeeds the scope `publish`.")
    counting = document["paths"]["/v1/events/stats"]["get"]
    assert "`stream`, of a key that is not confined" in counting["description"]


def test_every_reference_leads_somewhere_and_every_id_is_its_own(document: dict[str, Any]) -> None:
    named = {f"#/components/{kind}/{name}" for kind, each in document["components"].items() for name in each}
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]

    assert set(_references(document)) <= named
    assert len(ids) == len(set(ids))


def test_every_schema_and_example_is_good(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in schemas:
        jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}})
    for path, item in (document["paths"] | document["webhooks"]).items():
        for operation in item.values():
            for media in operation.get("requestBody", {}).get("content", {}).values():
                validator = jsonschema_rs.validator_for({**media["schema"], "components": {"schemas": schemas}})
                examples = [each["value"] for each in media.get("examples", {}).values()]
                for example in examples + ([media["example"]] if "example" in media else []):
                    assert validator.is_valid(example), (path, example)


def test_what_receivers_get_is_described(document: dict[str, Any]) -> None:
    webhook = document["webhooks"]["event"]["post"]

    assert {parameter["name"] for parameter in webhook["parameters"]} >= {
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    }


async def test_the_document_is_served_to_anybody(api: Api, document: dict[str, Any]) -> None:
    client = await api.client()

    served = await client.get("/openapi.json")

    assert served.headers["content-type"] == "application/json"
    assert served.json()["openapi"] == "3.1.0"
    assert "/v1/events" in served.json()["paths"]
    assert served.json()["paths"].keys() <= document["paths"].keys()


async def test_the_page_for_people_needs_no_other_server_and_no_script(
    admin: httpx.AsyncClient,
) -> None:
    page = await admin.get("/docs")
    served = (await admin.get("/openapi.json")).json()

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<script" not in page.text
    assert "src=" not in page.text
    for path in served["paths"]:
        assert path in page.text
    assert "&lt;version&gt;" in page.text  # what is described is text, never markup


def _references(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for inner in value.values() for found in _references(inner)]
    if isinstance(value, list):
        return [found for inner in value for found in _references(inner)]
    return []


def test_the_document_is_json_as_it_stands(document: dict[str, Any]) -> None:
    assert json.loads(json.dumps(document)) == document
