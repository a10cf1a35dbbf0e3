"""A process answers what its roles are for, and nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from gateway.app import Gateway
from gateway.cli.serve import command
from gateway.roles import ALL_ROLES, Role, roles_of
from gateway.settings import Settings

KEY = "correct-horse-battery"


@asynccontextmanager
async def serving(path: Path, *roles: Role) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(database_url=f"sqlite:///{path}/gateway.db", admin_key=KEY)  # type: ignore[arg-type]  # pydantic makes it a secret
    gateway = Gateway(settings, roles=frozenset(roles))
    app: Any = gateway.app  # Litestar and httpx type ASGI each in their own way
    headers = {"authorization": f"Bearer {KEY}"}
    transport = httpx.ASGITransport(app)
    async with (
        gateway.running(),
        httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client,
    ):
        yield client


API, STREAMS, ALWAYS = "/v1/events", "/v1/streams", "/metrics"


@pytest.mark.parametrize(
    ("roles", "answered"),
    [
        ((Role.API,), {API, ALWAYS}),
        ((Role.STREAM,), {STREAMS, ALWAYS}),
        ((Role.DISPATCH,), {ALWAYS}),
        ((Role.API, Role.STREAM), {API, STREAMS, ALWAYS}),
        (tuple(Role), {API, STREAMS, ALWAYS}),
    ],
)
async def test_what_is_no_business_of_its_roles_is_not_found(
    tmp_path: Path, roles: tuple[Role, ...], answered: set[str]
) -> None:
    async with serving(tmp_path, *roles) as client:
        found = {path: await client.get(path) for path in (API, STREAMS, ALWAYS)}
        assert {path for path, answer in found.items() if answer.status_code == 200} == answered
        for path in found.keys() - answered:
            assert found[path].status_code == 404
            assert found[path].json()["type"] == "/problems/not-found"
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 200


async def test_the_contract_that_it_shows_is_of_what_it_answers(tmp_path: Path) -> None:
    async with serving(tmp_path, Role.API) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert "/v1/events" in paths
    assert "/v1/events/stream" not in paths


@pytest.mark.parametrize(
    ("text", "roles"), [("api", {Role.API}), (" stream , dispatch", {Role.STREAM, Role.DISPATCH}), ("api,api", {"api"})]
)
def test_roles_are_named_with_commas_between_them(text: str, roles: set[Role]) -> None:
    assert roles_of(text) == roles
    assert roles_of(",".join(ALL_ROLES)) == ALL_ROLES


@pytest.mark.parametrize(
    ("text", "words"), [("api,sender", "'sender' is no role"), ("", "expected some of"), ("api,", "expected")]
)
def test_a_role_that_there_is_not_stops_the_start(text: str, words: str) -> None:
    result = CliRunner().invoke(command, ["--roles", text])
    assert result.exit_code == 2
    assert "--roles" in result.output
    assert words in result.output
    assert "api, stream, dispatch" in result.output
