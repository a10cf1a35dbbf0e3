"""What a real receiver process gets, checked with the libraries that receivers use, and one that never answers."""

import asyncio
import statistics
import time
from functools import partial

import pytest
import standardwebhooks
import svix.webhooks

from tests.e2e.api import Api, Json, api_of
from tests.e2e.processes import GatewayProcess, Workshop
from tests.e2e.receiver import Behaviour, Post
from tests.e2e.receivers import ReceiverProcess, receiver
from tests.e2e.waiting import eventually, eventually_answered
from webhooks import NoMatchingSignature, Webhook

pytestmark = pytest.mark.timeout(180)

SILENT_RECEIVERS = 50
WARM_UP_EVENTS = 10
MEASURED_EVENTS = 40
"""At each pace."""
PACE_SECONDS = 0.05
OWED_EVENTS = WARM_UP_EVENTS + 2 * MEASURED_EVENTS

AWKWARD_DATA = (
    '{"title":"Ünïcödé – 文書 – 🗄️","escaped":"\\u00e9\\ud83d\\ude00\\n\\t\\"","slash":"\\/"}',
    '{"big":12345678901234567890123,"exact":1.10,"tiny":1e-400,"minus_zero":-0,"huge":1E+400}',
    '{"nested":' + '[{"a":' * 30 + "null" + "}]" * 30 + "}",
    "{}",
    '{"same":1,"same":2}',
)


@pytest.fixture(scope="module")
def gateway(shared_workshop: Workshop) -> GatewayProcess:
    return shared_workshop.gateway({"RETRY_SCHEDULE": "[0.2, 0.2]"})


@pytest.fixture(scope="module")
def posts(shared_workshop: Workshop) -> ReceiverProcess:
    return receiver(shared_workshop)


def _event(library: str, **data: object) -> Json:
    return {"type": "document.added", "library_id": library, "data": data}


async def test_official_packages_accept_what_a_real_receiver_got(
    gateway: GatewayProcess, posts: ReceiverProcess
) -> None:
    async with api_of(gateway) as api:
        subscription = await api.subscribe(posts.url + "/signed", library_ids=["signed"])
        secret = subscription["secret"]
        ids = []
        for number, data in enumerate(AWKWARD_DATA):
            body = f'{{"type": "custom", "library_id": "signed", "id": "awkward:{number}", "data": {data}}}'
            answer = await api.client.post("/v1/events", content=body)
            assert answer.status_code == 202, answer.text
            ids.append(answer.json()["id"])
        got = await eventually(lambda: _complete(posts, "/signed", len(ids)), "each event has arrived")
    assert sorted(post.event_id for post in got) == sorted(ids)
    for post in got:
        standardwebhooks.Webhook(secret).verify(post.body, post.headers)
        svix.webhooks.Webhook(secret).verify(post.body, post.headers)
        assert Webhook(secret).verify(post.body, post.headers)["id"] == post.event_id
        with pytest.raises(NoMatchingSignature):
            Webhook(secret).verify(post.body + b" ", post.headers)
        number = int(post.event_id.removeprefix("awkward:"))
        assert post.body.decode().endswith(f'"data":{AWKWARD_DATA[number]}}}'), "data is sent as it was written"
        assert post.headers["content-type"] == "application/json"
        assert post.headers["user-agent"].startswith("arrw-gateway/")


async def test_while_a_secret_is_replaced_receivers_with_either_accept(
    gateway: GatewayProcess, posts: ReceiverProcess
) -> None:
    async with api_of(gateway) as api:
        subscription = await api.subscribe(posts.url + "/rotated", library_ids=["rotated"])
        old = subscription["secret"]
        new = (await api.call("POST", f"/v1/subscriptions/{subscription['id']}/rotate-secret", {}))["secret"]
        await api.publish(_event("rotated"))
        [post] = await eventually(lambda: _complete(posts, "/rotated", 1), "the event has arrived")
    assert new != old
    for secret in (old, new):
        standardwebhooks.Webhook(secret).verify(post.body, post.headers)
        svix.webhooks.Webhook(secret).verify(post.body, post.headers)


async def test_a_failing_receiver_gets_the_same_bytes_again_then_the_event_is_a_dead_letter_and_can_be_redelivered(
    gateway: GatewayProcess, posts: ReceiverProcess
) -> None:
    async with api_of(gateway) as api:
        url = posts.behave("/failing", Behaviour(status=500, body="no"))
        subscription = await api.subscribe(url, library_ids=["failing"])
        event_id = await api.publish(_event("failing", title="Käse"))
        [dead] = await _dead_letters(api, subscription["id"])
        assert (dead["event_id"], dead["reason"], dead["attempt_count"]) == (event_id, "exhausted", 3)
        posts.behave("/failing", Behaviour())
        await api.call("POST", "/v1/dead-letters/redeliver", {"ids": [dead["id"]]})
        await eventually(lambda: _complete(posts, "/failing", 4), "it was sent once more")
        settled = await eventually_answered(lambda: _delivered(api, subscription["id"]), "it is delivered")
    assert [attempt["status_code"] for attempt in settled["attempts"]] == [500, 500, 500, 204]
    assert len({(post.event_id, post.body) for post in posts.posts("/failing")}) == 1


async def test_a_redirect_is_not_followed_and_410_disables_the_subscription(
    gateway: GatewayProcess, posts: ReceiverProcess
) -> None:
    async with api_of(gateway) as api:
        elsewhere = posts.behave("/elsewhere", Behaviour())
        moved = posts.behave("/moved", Behaviour(status=307, headers={"location": elsewhere}))
        gone = posts.behave("/gone", Behaviour(status=410))
        at_moved = await api.subscribe(moved, library_ids=["moved"])
        at_gone = await api.subscribe(gone, library_ids=["moved"])
        await api.publish(_event("moved"))
        [dead] = await _dead_letters(api, at_moved["id"])
        assert (dead["reason"], dead["attempt_count"]) == ("exhausted", 3)
        [dead] = await _dead_letters(api, at_gone["id"])
        assert (dead["reason"], dead["attempt_count"]) == ("gone", 1)
        disabled = await api.call("GET", f"/v1/subscriptions/{at_gone['id']}")
    assert disabled["status"] == "disabled"
    assert disabled["disabled_reason"]
    assert posts.posts("/elsewhere") == []


async def test_retry_after_is_obeyed_for_the_whole_subscription(
    gateway: GatewayProcess, posts: ReceiverProcess
) -> None:
    async with api_of(gateway) as api:
        url = posts.behave("/busy", Behaviour(status=429, headers={"retry-after": "2"}))
        await api.subscribe(url, library_ids=["busy"])
        await api.publish(_event("busy", number=1))
        [first] = await eventually(lambda: _complete(posts, "/busy", 1), "it was tried")
        posts.behave("/busy", Behaviour())
        await api.publish(_event("busy", number=2))
        got = await eventually(lambda: _complete(posts, "/busy", 3), "both were sent")
    assert min(post.at for post in got[1:]) - first.at >= 1.9


async def test_fifty_receivers_that_never_answer_do_not_delay_a_healthy_one(
    gateway: GatewayProcess, posts: ReceiverProcess
) -> None:
    async with api_of(gateway) as api:
        await api.subscribe(posts.url + "/healthy", library_ids=["shared"])
        await _latencies(api, posts, WARM_UP_EVENTS)  # the first ones open connections and fill caches
        alone = await _measured(api, posts)
        silent = []
        for number in range(SILENT_RECEIVERS):
            url = posts.behave(f"/silent/{number}", Behaviour(silent=True))
            silent.append(await api.subscribe(url, library_ids=["shared"], timeout_seconds=60))
        # Not in turn with events for the healthy one alone: each of those would wait for what the one before has left.
        await _latencies(api, posts, WARM_UP_EVENTS)  # the silent ones take as much as they ever do
        beside_silent = await _measured(api, posts)
        # All of that happened while none of the silent ones had let go of its first attempt: had the healthy one been
        # behind any of them, it would have waited for a time-out.
        for number, subscription in enumerate(silent):
            assert posts.posts(f"/silent/{number}"), "the silent ones were sent something too"
            # Theirs are made after that of the healthy one, which may have it already.
            owed = await eventually_answered(partial(_all_owed, api, subscription["id"]), "each event is owed to it")
            assert len(owed) == OWED_EVENTS
            assert {(one["status"], one["attempt_count"]) for one in owed} == {("pending", 0)}
    # The figures are for people: a noisy machine must not fail the build.
    for pace in alone:
        before, beside = _summary(alone[pace]), _summary(beside_silent[pace])
        print(f"{pace}, alone: {before}; beside the silent ones: {beside}")  # noqa: T201 - shown with -s


async def _measured(api: Api, posts: ReceiverProcess) -> dict[str, list[float]]:
    """As events come now and then, and as fast as one by one can: fifty deliveries are made for each meanwhile."""
    back_to_back = await _latencies(api, posts, MEASURED_EVENTS)
    return {
        f"{PACE_SECONDS} s apart": await _latencies(api, posts, MEASURED_EVENTS, PACE_SECONDS),
        "back to back": back_to_back,
    }


async def _latencies(api: Api, posts: ReceiverProcess, count: int, pause_seconds: float = 0) -> list[float]:
    found = []
    for _ in range(count):
        await asyncio.sleep(pause_seconds)
        found.append(await _latency(api, posts))
    return found


async def _latency(api: Api, posts: ReceiverProcess) -> float:
    """Seconds from asking to publish until the healthy receiver has it."""
    before = len(posts.posts("/healthy"))
    asked = time.monotonic()
    event_id = await api.publish(_event("shared"))
    got = await eventually(partial(_complete, posts, "/healthy", before + 1), "it has arrived", every=0.005)
    assert got[-1].event_id == event_id
    return got[-1].at - asked


async def _all_owed(api: Api, subscription_id: str) -> list[Json] | None:
    owed = await api.deliveries(subscription_id=subscription_id)
    return owed if len(owed) >= OWED_EVENTS else None


def _summary(seconds: list[float]) -> str:
    median, p95 = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
    return f"median {median * 1e3:.1f} ms, p95 {p95 * 1e3:.1f} ms"


def _complete(posts: ReceiverProcess, path: str, count: int) -> list[Post] | None:
    got = posts.posts(path)
    return got if len(got) >= count else None


async def _dead_letters(api: Api, subscription_id: str) -> list[Json]:
    async def look() -> list[Json]:
        page: Json = await api.call("GET", "/v1/dead-letters", subscription_id=subscription_id)
        rows: list[Json] = page["data"]
        return rows

    return await eventually_answered(look, "a dead letter")


async def _delivered(api: Api, subscription_id: str) -> Json | None:
    delivery = await api.delivery(subscription_id=subscription_id)
    return delivery if delivery["status"] == "delivered" else None
