"""A zoo of receivers behind the whole gateway: for each its verdict, its stored attempt, and the words for its owner.

event ─▶ log ─▶ fan-out ─▶ lane ─▶ sender ─▶ real socket ─▶ the animal
                                                              │
the table in zoo.py ◀── GET /v1/deliveries/{id} ◀── settled ◀─┘
"""

import asyncio
import sqlite3
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.api import Api, Json
from tests.e2e.waiting import eventually_answered
from tests.sending.gateways import LOCAL, a_gateway
from tests.sending.names import Directory, Names, name_server
from tests.sending.receivers import OK, Authority, Receiver, receiving
from tests.sending.zoo import SHORT, WAIT_SECONDS, ZOO, Again, Animal, Dead, Delivered, Keeper
from webhooks.destinations import Guard, parse_networks
from webhooks.transport import VettingTransport

SLACK_SECONDS = 5.0
TOKEN = "swordfish-and-chips"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What came of its delivery."""

    delivery: Json
    subscription: Json
    failure: str | None
    receiver: Receiver | None
    elsewhere: int
    """Connections to where redirects lead, of all animals."""

    @property
    def attempt(self) -> Json:
        [attempt] = self.delivery["attempts"]
        return dict(attempt)


async def visit(directory: Path) -> dict[str, Seen]:
    """Send one event to each, all at once."""
    authority = Authority(directory)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        known = {
            "nowhere.example": await enter(name_server(3)),
            "mute.example": await enter(name_server(None)),
        }
        names = Names(hooks_example=[["127.0.0.1"]], inside_example=[["10.0.0.1"]])
        transport = VettingTransport(
            Guard(parse_networks(LOCAL)), ssl_context=authority.trusting(), resolver=Directory(known, names)
        )
        elsewhere = await enter(receiving(OK))
        keeper = Keeper(authority=authority, elsewhere=elsewhere)
        homes = {animal.name: await enter(animal.home(keeper)) for animal in ZOO}
        api = await enter(a_gateway(directory, transport=transport, retry_schedule=[WAIT_SECONDS]))
        made = await asyncio.gather(*(_subscribe(api, animal, homes[animal.name][0]) for animal in ZOO))
        subscriptions = dict(zip((animal.name for animal in ZOO), made, strict=True))
        await api.publish_all(
            {"type": "custom", "library_id": animal.library, "data": {"title": animal.title}} for animal in ZOO
        )
        deliveries = await _tried(api, subscriptions)
        now = {one["id"]: one for one in (await api.call("GET", "/v1/subscriptions", page_size="500"))["data"]}
        failures = _failures(directory / "gateway.db")
        return {
            name: Seen(
                delivery=delivery,
                subscription=now[subscriptions[name]],
                failure=failures[delivery["id"]],
                receiver=homes[name][1],
                elsewhere=elsewhere.connections,
            )
            for name, delivery in deliveries.items()
        }


async def _subscribe(api: Api, animal: Animal, url: str) -> str:
    made = await api.subscribe(
        url, library_ids=[animal.library], timeout_seconds=animal.timeout, headers={"x-token": TOKEN}
    )
    return str(made["id"])


async def _tried(api: Api, subscriptions: dict[str, str]) -> dict[str, Json]:
    """The delivery of each, once all of them have been tried."""

    async def look() -> dict[str, str] | None:
        found = await api.deliveries()
        tried = {one["subscription_id"]: one["id"] for one in found if one["attempt_count"]}
        return tried if len(tried) == len(subscriptions) else None

    tried = await eventually_answered(look, "each was tried", every=0.1, within=60)
    whole = await asyncio.gather(
        *(api.call("GET", f"/v1/deliveries/{tried[subscription_id]}") for subscription_id in subscriptions.values())
    )
    return dict(zip(subscriptions, whole, strict=True))


def _failures(database: Path) -> dict[str, str | None]:
    """By delivery: what the circuit makes of its attempt, which is nobody's business outside."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        return dict(connection.execute("SELECT delivery_id, failure FROM attempts").fetchall())


@pytest.fixture(scope="module")
def visited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    return asyncio.run(visit(tmp_path_factory.mktemp("zoo")))


@pytest.mark.parametrize("animal", ZOO, ids=lambda animal: animal.name)
def test_each_animal_has_its_verdict_its_attempt_and_its_words(animal: Animal, visited: dict[str, Seen]) -> None:
    seen = visited[animal.name]
    attempt = seen.attempt
    assert (attempt["status_code"], attempt["error"], seen.failure) == (animal.status, animal.words, animal.failure)
    _check_verdict(animal.verdict, seen.delivery)
    _check_attempt(animal, attempt)
    assert (seen.subscription["status"], seen.subscription["disabled_reason"]) == (
        "active" if animal.disabled is None else "disabled",
        animal.disabled,
    )
    if seen.receiver is not None:
        # None where TLS failed: such a connection never reaches what answers.
        assert seen.receiver.connections <= 1, "nothing is tried twice in one attempt"


def _check_verdict(verdict: Delivered | Again | Dead, delivery: Json) -> None:
    [attempt] = delivery["attempts"]
    assert delivery["attempt_count"] == attempt["number"] == 1
    match verdict:
        case Delivered():
            assert (delivery["status"], delivery["reason"]) == ("delivered", None)
            assert delivery["settled_at"] is not None
        case Dead(reason):
            assert (delivery["status"], delivery["reason"]) == ("dead", reason)
        case Again(after):
            assert (delivery["status"], delivery["reason"], delivery["settled_at"]) == ("pending", None, None)
            ended = _moment(attempt["started_at"]) + timedelta(milliseconds=attempt["duration_ms"])
            wait = (_moment(delivery["due_at"]) - ended).total_seconds()
            least, most = (0.8 * WAIT_SECONDS, 1.2 * WAIT_SECONDS) if after is None else (after - 2, after)
            assert least <= wait <= most + SLACK_SECONDS


def _check_attempt(animal: Animal, attempt: Json) -> None:
    assert 0 < attempt["duration_ms"] < (animal.timeout + SLACK_SECONDS) * 1e3
    if animal.timeout == SHORT:
        assert attempt["duration_ms"] >= SHORT * 1e3
    assert len(attempt["response_body"]) <= 4_096
    if animal.body is not None:
        assert attempt["response_body"] == animal.body
    assert {name: attempt["response_headers"].get(name) for name in animal.headers} == animal.headers
    if attempt["status_code"] is None:
        assert (attempt["response_headers"], attempt["response_body"]) == ({}, "")
    sent = attempt["request_headers"]
    assert sent["webhook-id"].startswith("evt_")
    assert sent["webhook-signature"] == "v1,***"
    assert sent["x-token"] == "***"
    assert TOKEN not in repr(attempt)


def test_no_redirect_leads_anywhere(visited: dict[str, Seen]) -> None:
    assert {seen.elsewhere for seen in visited.values()} == {0}


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
