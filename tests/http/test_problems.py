"""Every error is a problem document, whoever raised it."""

from dataclasses import replace

import httpx
import pytest
import structlog
from litestar import get

from gateway.errors import Fault, InvalidInput, StorageUnavailable
from gateway.events import LoggedEvent
from gateway.http.auth import PUBLIC
from gateway.http.problems import of_gateway
from gateway.http.routes import create_http
from gateway.keys import Scope
from gateway.ports.desk import DeliveryRecord, ReplayRecord
from gateway.storage.memory import MemoryEventLog
from gateway.subscriptions import Subscription
from tests.http.conftest import Api
from tests.http.doubles import Desk, Subscriptions


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/events/a/b/c", "/docs/x"])
async def test_an_unknown_path_is_a_problem(admin: httpx.AsyncClient, path: str) -> None:
    answer = await admin.get(path)

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "/problems/not-found",
        "title": "There is no such thing",
        "status": 404,
        "detail": "there is nothing at this path",
    }


async def test_a_method_that_the_resource_does_not_have_is_a_405_that_names_those_it_has(
    admin: httpx.AsyncClient,
) -> None:
    answer = await admin.put("/v1/events", json={})

    assert answer.status_code == 405
    assert {method.strip() for method in answer.headers["allow"].split(",")} == {"GET", "POST", "OPTIONS"}
    assert answer.json()["type"] == "/problems/method-not-allowed"


@pytest.mark.parametrize(
    ("path", "methods"), [("/v1/events", "GET, OPTIONS, POST"), ("/v1/subscriptions/x", "DELETE, GET, OPTIONS, PATCH")]
)
async def test_options_says_which_methods_there_are_to_anybody(api: Api, path: str, methods: str) -> None:
    answer = await (await api.client()).options(path)

    assert answer.status_code == 204
    assert answer.headers["allow"] == methods


async def test_a_surprise_is_logged_in_full_and_answered_without_a_word_of_it(api: Api) -> None:
    @get("/boom", opt={PUBLIC: True})
    async def boom() -> None:
        raise RuntimeError("the secret inside")

    client = await api.client(app=create_http(api.services, route_handlers=[boom]))
    with structlog.testing.capture_logs() as logs:
        answer = await client.get("/boom?token=t0ken")

    assert answer.status_code == 500
    assert answer.json()["type"] == "/problems/internal"
    assert "secret" not in answer.text
    (entry,) = logs
    assert str(entry["exc_info"]) == "the secret inside"
    assert "t0ken" not in str(entry)


async def test_not_being_ready_is_a_503_that_says_when_to_come_back(api: Api) -> None:
    api.drains = True
    client = await api.client()

    answer = await client.get("/health/ready")

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["type"] == "/problems/overloaded"
    assert (await client.get("/health/live")).json() == {"status": "ok"}


def test_what_the_database_said_is_not_passed_on() -> None:
    answer = of_gateway(StorageUnavailable("disk I/O error at /var/lib/gateway.db"))

    assert answer.status_code == 503
    assert b"gateway.db" not in answer.content


def test_half_a_surrogate_pair_in_a_pointer_can_be_written() -> None:
    answer = of_gateway(InvalidInput("x\ud800", [Fault("/\udfff", "bad")]))

    assert "\ufffd" in answer.content.decode()


def test_only_the_first_hundred_faults_are_named() -> None:
    answer = of_gateway(InvalidInput("many", [Fault(f"/{n}", "bad") for n in range(1000)]))

    assert answer.content.count(b"pointer") == 100


async def test_pages_of_permitted_origins_may_read_even_errors_and_others_may_not(api: Api) -> None:
    nobody = await api.client()

    ours = await nobody.get("/v1/events", headers={"origin": "https://page.example"})
    theirs = await nobody.get("/v1/events", headers={"origin": "https://page.example.evil"})

    assert ours.status_code == theirs.status_code == 401
    assert ours.headers["access-control-allow-origin"] == "https://page.example"
    assert ours.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in theirs.headers
    assert "access-control-allow-credentials" not in ours.headers


async def test_a_preflight_lets_the_headers_of_readers_pass_without_a_key(api: Api) -> None:
    nobody = await api.client(Scope.STREAM)

    answer = await nobody.options(
        "/v1/events",
        headers={
            "origin": "https://page.example",
            "access-control-request-method": "GET",
            "access-control-request-headers": "authorization,last-event-id,content-type",
        },
    )

    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    assert {"authorization", "last-event-id", "content-type"} <= {
        name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")
    }


@pytest.mark.parametrize(
    "path",
    ["/v1/events/{}", "/v1/subscriptions/{}", "/v1/subscriptions/{}/secret", "/v1/deliveries/{}", "/v1/replays/{}"],
)
@pytest.mark.parametrize("id_", ["%00", "%ff", "a.b", "a" * 129, "%F0%9F%92%A9"])
async def test_what_cannot_be_an_id_is_a_404_and_is_not_put_to_a_database(api: Api, path: str, id_: str) -> None:
    class AskedLog(MemoryEventLog):
        async def get(self, event_id: str) -> LoggedEvent | None:
            raise AssertionError(event_id)

    class AskedSubscriptions(Subscriptions):
        async def get(self, subscription_id: str) -> Subscription | None:
            raise AssertionError(subscription_id)

    class AskedDesk(Desk):
        async def get(self, delivery_id: str) -> DeliveryRecord | None:
            raise AssertionError(delivery_id)

        async def replay(self, replay_id: str) -> ReplayRecord | None:
            raise AssertionError(replay_id)

    asked = replace(api.services, log=AskedLog(), subscriptions=AskedSubscriptions(), desk=AskedDesk())
    client = await api.client(Scope.ADMIN, app=create_http(asked))

    assert (await client.get(path.format(id_))).status_code == 404
