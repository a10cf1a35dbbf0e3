"""What a receiver gets, and what its owner is told, held line by line against the running gateway."""

import base64
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest
from cloudevents.v1.http import from_http
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.e2e.api import Api, Json
from tests.e2e.waiting import eventually, eventually_answered
from tests.sending import animals
from tests.sending.animals import answers
from tests.sending.gateways import a_gateway
from tests.sending.receivers import OK, Behaviour, Caller, Receiver, receiving
from webhooks import Webhook

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SOON = [0.05] * 100
"""A schedule that is never used up while a test lasts."""


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with a_gateway(tmp_path) as api:
        yield api


def an_event(**more: object) -> Json:
    return {"type": "custom", "library_id": "acme", "data": {}, **more}


def head_and_body(request: bytes) -> tuple[dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}, body


class Switch:
    """A receiver whose behaviour can change."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave

    async def __call__(self, caller: Caller) -> None:
        await self.behave(caller)


CLOSING_500 = animals.answering_once(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
CLOSING_204 = animals.answering_once(b"HTTP/1.1 204 Yes\r\nconnection: close\r\n\r\n")


async def told(api: Api, type_: str) -> list[Json]:
    return [event["data"] for event in await api.events(type=f"gateway.{type_}")]


async def status_of(api: Api, subscription_id: str) -> tuple[str, str | None]:
    found = await api.call("GET", f"/v1/subscriptions/{subscription_id}")
    return found["status"], found["disabled_reason"]


async def until_all(api: Api, status: str, **query: str) -> list[Json]:
    """The deliveries of *query*, once all of them are *status*."""

    async def look() -> list[Json] | None:
        found = await api.deliveries(**query)
        return found if found and {one["status"] for one in found} == {status} else None

    return await eventually_answered(look, f"all are {status}")


async def until_requests(receiver: Receiver, count: int) -> list[bytes]:
    return await eventually(
        lambda: receiver.requests if len(receiver.requests) >= count else None, f"{count} requests came"
    )


# --- what is sent ----------------------------------------------------------------------------------------------------


async def test_a_cloudevent_is_one_to_the_official_package_and_is_signed_traced_and_has_its_headers(api: Api) -> None:
    async with receiving(OK) as receiver:
        made = await api.subscribe(receiver.url(), payload="cloudevents", headers={"X-Token": "swordfish"})
        data = '{"n":12345678901234567890123,"text":"naïve 🗂"}'
        body = f'{{"type":"document.added","library_id":"L:1","timestamp":"2025-10-27T06:01:00Z","data":{data}}}'
        answer = await api.client.post("/v1/events", content=body, headers={"traceparent": TRACE})
        [request] = await until_requests(receiver, 1)
    headers, sent = head_and_body(request)
    event = from_http(headers, sent)
    assert (event["specversion"], event["id"], event["type"]) == ("1.0", answer.json()["id"], "document.added")
    assert (event["source"], event["time"]) == ("/libraries/L:1", "2025-10-27T06:01:00Z")
    assert event.data == {"n": 12345678901234567890123, "text": "naïve 🗂"}
    assert data.encode() in sent
    assert headers["content-type"] == "application/cloudevents+json"
    assert (headers["traceparent"], headers["x-token"]) == (TRACE, "swordfish")
    assert headers["webhook-id"] == event["id"]
    Webhook(made["secret"]).verify(sent, headers)


async def test_v1a_verifies_with_the_public_key_here_and_with_nothing_of_ours(api: Api) -> None:
    async with receiving(OK) as receiver:
        made = await api.subscribe(receiver.url(), signature="v1a")
        assert made["secret"] is None
        public = (await api.call("GET", f"/v1/subscriptions/{made['id']}/public-key"))["public_key"]
        await api.publish(an_event())
        [request] = await until_requests(receiver, 1)
    headers, body = head_and_body(request)
    assert Webhook(public).verify(body, headers)["library_id"] == "acme"
    version, _, signature = headers["webhook-signature"].partition(",")
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_")))
    key.verify(base64.b64decode(signature), signed)
    assert version == "v1a"


async def test_every_attempt_has_the_same_id_and_bytes_and_a_signature_of_its_own_moment(api: Api) -> None:
    switch = Switch(CLOSING_500)
    async with receiving(switch) as receiver:
        made = await api.subscribe(receiver.url(), retry_schedule=[0.0, 1.2, 0.0])
        await api.publish(an_event())
        await until_requests(receiver, 2)
        switch.behave = CLOSING_204
        await until_all(api, "delivered")
    sent = [head_and_body(request) for request in receiver.requests]
    assert len({(headers["webhook-id"], body) for headers, body in sent}) == 1
    assert len({headers["webhook-timestamp"] for headers, _ in sent}) > 1
    for headers, body in sent:
        Webhook(made["secret"]).verify(body, headers)


# --- what becomes of a subscription that fails -----------------------------------------------------------------------


async def test_its_owner_is_told_half_way_and_then_it_is_disabled_and_keeps_collecting(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, disable_after_seconds=2.0) as api, receiving(CLOSING_500) as receiver:
        made = await api.subscribe(receiver.url(), types=["custom"], retry_schedule=SOON)
        await api.publish(an_event())

        async def failing() -> list[Json]:
            return await told(api, "subscription.failing")

        [notice] = await eventually_answered(failing, "its owner is told")
        assert notice["subscription_id"] == made["id"]
        assert notice["status"] == "active"
        assert await status_of(api, made["id"]) == ("active", None)

        async def is_disabled() -> bool:
            return await status_of(api, made["id"]) == ("disabled", "failing")

        await eventually_answered(is_disabled, "it is disabled")
        count = len(receiver.requests)
        await api.publish(an_event())
        [first, second] = await eventually_answered(lambda: _two(api), "it collects")
        assert (first["status"], second["status"]) == ("pending", "pending")
        assert len(receiver.requests) == count, "and is sent nothing"
        assert len(await told(api, "subscription.failing")) == 1
        [notice] = await told(api, "subscription.disabled")
        assert (notice["subscription_id"], notice["disabled_reason"]) == (made["id"], "failing")
        [first, *_, last] = (await api.call("GET", f"/v1/deliveries/{second['id']}"))["attempts"]
        assert first["started_at"] < last["started_at"]


async def _two(api: Api) -> list[Json] | None:
    found = await api.deliveries()
    return found if len(found) == 2 else None


async def test_410_ends_the_delivery_disables_and_the_rest_waits_until_it_is_resumed(api: Api) -> None:
    switch = Switch(animals.answering_once(b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"))
    async with receiving(switch) as receiver:
        made = await api.subscribe(receiver.url(), ordering="library", types=["custom"])
        await api.publish_all(an_event(id=f"e{number}") for number in range(5))
        await until_all(api, "dead", event_id="e0")
        assert await status_of(api, made["id"]) == ("disabled", "gone")
        assert {one["status"] for one in await api.deliveries() if one["event_id"] != "e0"} == {"pending"}
        switch.behave = CLOSING_204
        await api.call("POST", f"/v1/subscriptions/{made['id']}/resume")
        for number in range(1, 5):
            await until_all(api, "delivered", event_id=f"e{number}")
    [dead] = (await api.call("GET", "/v1/dead-letters"))["data"]
    assert (dead["event_id"], dead["reason"], dead["attempt_count"]) == ("e0", "gone", 1)
    assert [notice["subscription_id"] for notice in await told(api, "subscription.resumed")] == [made["id"]]
    assert [notice["reason"] for notice in await told(api, "delivery.dead")] == ["gone"]
    ids = [head_and_body(request)[0]["webhook-id"] for request in receiver.requests]
    assert ids == ["e0", "e1", "e2", "e3", "e4"]


async def test_a_paused_subscription_collects_and_drains_in_order_at_its_own_rate(api: Api) -> None:
    async with receiving(OK) as receiver:
        made = await api.subscribe(receiver.url(), ordering="library", max_per_second=20)
        await api.call("POST", f"/v1/subscriptions/{made['id']}/pause")
        await api.publish_all(an_event(id=f"e{number:02}") for number in range(20))
        await until_all(api, "pending")
        assert receiver.requests == []
        await api.call("POST", f"/v1/subscriptions/{made['id']}/resume")
        await until_all(api, "delivered")
    ids = [head_and_body(request)[0]["webhook-id"] for request in receiver.requests]
    assert ids == [f"e{number:02}" for number in range(20)]
    whole = [await api.call("GET", f"/v1/deliveries/{one['id']}") for one in await api.deliveries()]
    moments = sorted(datetime.fromisoformat(one["attempts"][0]["started_at"]) for one in whole)
    assert (moments[-1] - moments[0]).total_seconds() >= 19 / 20 - 0.05


async def test_a_delivery_is_dead_when_it_is_too_old_but_time_paused_does_not_count(tmp_path: Path) -> None:
    async with (
        a_gateway(tmp_path, max_delivery_age_seconds=1.5) as api,
        receiving(CLOSING_500) as receiver,
        receiving(CLOSING_500) as paused_receiver,
    ):
        tried = await api.subscribe(receiver.url(), types=["custom"], retry_schedule=SOON)
        paused = await api.subscribe(paused_receiver.url(), types=["custom"], retry_schedule=SOON)
        await api.publish(an_event())
        await until_requests(paused_receiver, 1)
        await api.call("POST", f"/v1/subscriptions/{paused['id']}/pause")
        [dead] = await until_all(api, "dead", subscription_id=tried["id"])
        assert dead["reason"] == "expired"
        assert dead["attempt_count"] == len(receiver.requests) > 3
        [waiting] = await api.deliveries(subscription_id=paused["id"])
        assert waiting["status"] == "pending"
        count = len(paused_receiver.requests)
        await api.call("POST", f"/v1/subscriptions/{paused['id']}/resume")
        await until_requests(paused_receiver, count + 3)
        [dead] = await until_all(api, "dead", subscription_id=paused["id"])
        assert dead["reason"] == "expired"


async def test_a_subscription_that_fails_is_not_told_of_its_own_failures_for_ever(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, disable_after_seconds=0.4) as api, receiving(CLOSING_500) as receiver:
        watching = await api.subscribe(receiver.url(), types=["gateway.*"], retry_schedule=[0.05, 0.05])
        other = await api.subscribe(receiver.url(), types=["custom"], retry_schedule=[0.0])
        await api.publish(an_event())
        await until_all(api, "dead", subscription_id=other["id"])

        async def over() -> bool:
            owed = await api.deliveries(subscription_id=watching["id"], status="pending")
            return (await status_of(api, watching["id"]))[0] == "disabled" or not owed

        await eventually_answered(over, "it is disabled, or owes nothing")
        head = (await api.events(type="gateway.*"))[-1]["cursor"]
        await api.publish(an_event(type="custom.other"))
        types = Counter(event["type"] for event in await api.events(type="gateway.*"))
        assert types["gateway.delivery.dead"] == 1, "of the other's event alone"
        assert (await api.events(type="gateway.*"))[-1]["cursor"] == head
        dead = await told(api, "delivery.dead")
        assert [one["subscription_id"] for one in dead] == [other["id"]]


@pytest.mark.parametrize("state", ["active", "paused", "disabled"])
async def test_a_test_sends_a_ping_whatever_the_status_and_counts_for_nothing(api: Api, state: str) -> None:
    switch = Switch(animals.answering_once(b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"))
    async with receiving(switch) as receiver:
        made = await api.subscribe(receiver.url(), types=["custom"])
        test = f"/v1/subscriptions/{made['id']}/test"
        if state == "paused":
            await api.call("POST", f"/v1/subscriptions/{made['id']}/pause")
        if state == "disabled":
            await api.publish(an_event())
            await until_all(api, "dead")
        before = await api.call("GET", f"/v1/subscriptions/{made['id']}")
        assert before["status"] == state
        sent = len(receiver.requests)
        logged, owed = await api.events(type="gateway.*"), await api.deliveries()
        for behave, status in ((switch.behave, 410), (CLOSING_500, 500), (CLOSING_204, 204)):
            switch.behave = behave
            attempt = await api.call("POST", test)
            assert (attempt["number"], attempt["status_code"], attempt["error"]) == (1, status, None)
        switch.behave = animals.resetting
        attempt = await api.call("POST", test)
        assert (attempt["status_code"], attempt["error"]) == (None, "connection reset")
        assert await api.call("GET", f"/v1/subscriptions/{made['id']}") == before
        assert (await api.events(type="gateway.*"), await api.deliveries()) == (logged, owed)
    pings = [head_and_body(request) for request in receiver.requests[sent:]]
    assert len({headers["webhook-id"] for headers, _ in pings}) == len(pings) == 4
    for headers, body in pings:
        assert Webhook(made["secret"]).verify(body, headers)["type"] == "gateway.ping"


async def test_what_a_deleted_subscription_owed_is_cancelled_and_nothing_new_is_sent(api: Api) -> None:
    async with receiving(answers(503, b"retry-after: 3600\r\n" + animals.NO_BODY)) as receiver:
        made = await api.subscribe(receiver.url(), max_in_flight=1)
        await api.publish_all(an_event() for _ in range(5))
        await until_requests(receiver, 1)
        await api.call("DELETE", f"/v1/subscriptions/{made['id']}")
        cancelled = await until_all(api, "cancelled", subscription_id=made["id"])
        assert {one["reason"] for one in cancelled} == {"subscription_deleted"}
        assert len(cancelled) == 5
        assert sorted(one["attempt_count"] for one in cancelled) == [0, 0, 0, 0, 1]
        await api.publish(an_event())
        assert len(receiver.requests) == 1
        assert (await api.client.get(f"/v1/subscriptions/{made['id']}")).status_code == 404
