"""Replays to a real receiver: through `kill -9`, behind live work, in order, and stopped."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest

from tests.e2e.api import Api, Json, api_of
from tests.e2e.processes import GatewayProcess, Workshop
from tests.e2e.receiver import Behaviour, Post
from tests.e2e.receivers import ReceiverProcess, receiver
from tests.e2e.waiting import eventually, eventually_answered

pytestmark = pytest.mark.timeout(180)

EVENTS = 2_000
LONG_AGO = "2020-01-01T00:00:00Z"
NOT_BEHIND = 200
"""A live event may find so many replayed ones ahead of it: those under way, and what comes while it is published."""


@pytest.mark.chaos
async def test_a_replay_survives_kills_keeps_its_order_and_lets_live_events_by(workshop: Workshop) -> None:
    gateway, posts = workshop.gateway(), receiver(workshop)
    async with api_of(gateway) as api:
        past = await _publish_past(api)
        # One at a time, so that the order of arrival is that of sending.
        subscription = await api.subscribe(posts.behave("/hooks", Behaviour()), max_in_flight=1)
        path = f"/v1/subscriptions/{subscription['id']}/replay"
        assert await api.call("POST", path, {"since": LONG_AGO, "dry_run": True}) == {"matched": EVENTS}
        replay = await api.call("POST", path, {"since": LONG_AGO})
        assert replay["matched"] == EVENTS

        await _arrived(posts, 300)
        await asyncio.to_thread(gateway.kill)
        cut_off_at = len(posts.posts())
        await asyncio.to_thread(gateway.start)
        await _arrived(posts, cut_off_at + 200)
        live = [await _publish_live(api, posts, number) for number in range(5)]
        await asyncio.to_thread(gateway.kill)
        await asyncio.to_thread(gateway.start)

        progress = await _ended(api, replay["id"])
        firsts = list(dict.fromkeys(post.event_id for post in posts.posts()))
        assert [event_id for event_id in firsts if event_id not in live] == past
        assert (progress["status"], progress["created"], progress["delivered"]) == ("finished", EVENTS, EVENTS)
        assert (progress["pending"], progress["dead"], progress["cancelled"]) == (0, 0, 0)
        assert progress["finished_at"] is not None
        again = {"since": LONG_AGO, "only": "undelivered", "dry_run": True}
        assert await api.call("POST", path, again) == {"matched": 0}
        await _check_deliveries(api, past[0], replay["id"])


async def test_a_replay_keeps_its_own_rate_and_ends_when_it_is_stopped(workshop: Workshop) -> None:
    gateway, posts = workshop.gateway(), receiver(workshop)
    async with api_of(gateway) as api:
        await _publish_past(api)
        subscription = await api.subscribe(posts.behave("/hooks", Behaviour()))
        path = f"/v1/subscriptions/{subscription['id']}/replay"
        replay = await api.call("POST", path, {"since": LONG_AGO, "max_per_second": 20})
        await _arrived(posts, 40)
        _check_rate(posts.posts(), per_second=20)

        await api.call("DELETE", f"/v1/replays/{replay['id']}")
        stopped = await api.call("GET", f"/v1/replays/{replay['id']}")
        assert (stopped["status"], stopped["pending"]) == ("stopped", 0)
        assert stopped["delivered"] + stopped["cancelled"] == stopped["created"] < EVENTS
        await _restart(gateway)
        await _publish_live(api, posts, 0)
        # Those in flight when it was stopped had been sent.
        assert len(posts.posts()) <= stopped["delivered"] + 8 + 1
        assert (await api.call("GET", f"/v1/replays/{replay['id']}"))["created"] == stopped["created"]


async def _publish_past(api: Api) -> list[str]:
    ids: list[str] = []
    for start in range(0, EVENTS, 500):
        batch = [_event(f"past-{number:04}") for number in range(start, start + 500)]
        ids += [receipt["id"] for receipt in (await api.call("POST", "/v1/events", batch))["data"]]
    return ids


async def _publish_live(api: Api, posts: ReceiverProcess, number: int) -> str:
    """It arrives though the replay is under way; its id."""
    before = len(posts.posts())
    event_id = await api.publish(_event(f"live-{number}"))
    arrived = await eventually(lambda: _place(posts.posts(), event_id), f"{event_id} has arrived")
    assert arrived - before <= NOT_BEHIND, f"{arrived - before} others came before {event_id}"
    return event_id


def _event(id_: str) -> Json:
    return {"id": id_, "type": "document.added", "library_id": "books", "data": {"title": id_}}


def _place(posts: Sequence[Post], event_id: str) -> int | None:
    """As which one it arrived, from 1."""
    return next((place for place, post in enumerate(posts, 1) if post.event_id == event_id), None)


async def _arrived(posts: ReceiverProcess, count: int) -> None:
    await eventually(lambda: len(posts.posts()) >= count, f"{count} have arrived", within=60)


async def _restart(gateway: GatewayProcess) -> None:
    await asyncio.to_thread(gateway.kill)
    await asyncio.to_thread(gateway.start)


async def _ended(api: Api, replay_id: str) -> Json:
    async def look() -> Json | None:
        progress: Json = await api.call("GET", f"/v1/replays/{replay_id}")
        return None if progress["status"] == "running" else progress

    return await eventually_answered(look, "the replay has ended", within=90, every=0.2)


def _check_rate(posts: Sequence[Post], *, per_second: float) -> None:
    gaps = [round(later.at - earlier.at, 3) for earlier, later in pairwise(posts)]
    assert len(gaps) / sum(gaps) <= per_second * 1.1, gaps
    assert max(gaps) < 1, gaps


async def _check_deliveries(api: Api, event_id: str, replay_id: str) -> None:
    """The event is from before the subscription: the replay's is its only delivery."""
    delivery = await api.delivery(event_id=event_id)
    assert (delivery["replay_id"], delivery["status"]) == (replay_id, "delivered")
