"""What was promised and what came of it: kept while the gateway is killed, and balanced at the end.

publishers ─ attempted, accepted ─┐
GET /v1/events ─ logged ──────────┼─▶ balance
streams, receivers, deliveries ───┘
"""

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field

import httpx

from tests.e2e.api import Json
from tests.e2e.receiver import Post
from tests.e2e.streams import Message

LIBRARIES = ("books", "films", "550e8400-e29b-41d4-a716-446655440000")
TYPES = ("document.added", "document.deleted", "document.page.added", "search.performed", "custom")
REPEAT_SECONDS = 0.1

Matches = Callable[[Json], bool]
Slip = tuple[int, int]
"""Which publisher, and which of its events: written into each event's data."""


@dataclass(slots=True)
class Ledger:
    attempted: dict[Slip, Json] = field(default_factory=dict)
    accepted: dict[str, Slip] = field(default_factory=dict)
    """By the id that the answer named."""
    unanswered: int = 0
    """Requests that were cut off while the gateway had them, or might have."""
    not_taken: int = 0
    """Requests that came to nobody, or were told to come later."""

    def check_log(self, logged: Sequence[Json]) -> None:
        """Each accepted event is in the log, as it was sent; nothing else is; repeating it left one."""
        by_id = {event["id"]: event for event in logged}
        assert len(by_id) == len(logged), "no id is in the log twice"
        missing = self.accepted.keys() - by_id.keys()
        assert not missing, f"{len(missing)} events were answered 202 and are not in the log: {sorted(missing)[:5]}"
        copies = Counter(slip_of(event) for event in logged)
        doubled = [slip for slip, count in copies.items() if count > 1]
        assert not doubled, f"published once, logged several times: {doubled[:5]}"
        for event in logged:
            sent = self.attempted.get(slip_of(event))
            assert sent is not None, f"{event['id']} was never published"
            assert {name: event[name] for name in sent} == sent
        for event_id, slip in self.accepted.items():
            assert slip_of(by_id[event_id]) == slip, f"{event_id} was answered for another event"


class PublisherTask:
    """Publishes until told to stop; some with ids of its own, which it repeats until it is answered."""

    def __init__(self, number: int, client: httpx.AsyncClient, ledger: Ledger, rand: random.Random) -> None:
        self._number = number
        self._client = client
        self._ledger = ledger
        self._rand = rand
        self._count = 0

    async def run(self, stop: asyncio.Event, pause_seconds: float) -> None:
        while not stop.is_set():
            own_ids = self._rand.random() < 0.6
            events = [self._event(own_id=own_ids) for _ in range(self._rand.choice((1, 1, 1, 5, 12)))]
            while not await self._publish(events) and own_ids:  # noqa: ASYNC110 - as clients do: nothing tells them when
                await asyncio.sleep(REPEAT_SECONDS)
            await asyncio.sleep(pause_seconds * self._rand.random())

    def _event(self, *, own_id: bool) -> Json:
        slip = (self._number, self._count)
        self._count += 1
        event: Json = {
            "type": self._rand.choice(TYPES),
            "library_id": self._rand.choice(LIBRARIES),
            "data": {"slip": slip, "priority": self._rand.choice(("high", "low")), "text": "naïve\r\n\n\rdata: 🗂"},
        }
        if own_id:
            event["id"] = f"own:{slip[0]}:{slip[1]}"
        self._ledger.attempted[slip] = json.loads(json.dumps(event))
        return event

    async def _publish(self, events: list[Json]) -> bool:
        """Whether it was answered that they are stored."""
        body = events[0] if len(events) == 1 else events
        try:
            answer = await self._client.post("/v1/events", json=body)
        except httpx.ConnectError:
            self._ledger.not_taken += 1
            return False
        except httpx.TransportError:
            self._ledger.unanswered += 1
            return False
        if answer.status_code == 503:
            self._ledger.not_taken += 1
            return False
        assert answer.status_code in {200, 202}, answer.text
        receipts = [answer.json()] if len(events) == 1 else answer.json()["data"]
        for event, receipt in zip(events, receipts, strict=True):
            assert event.get("id", receipt["id"]) == receipt["id"]
            self._ledger.accepted[receipt["id"]] = slip_of(event)
        return True


def slip_of(event: Json) -> Slip:
    publisher, number = event["data"]["slip"]
    return publisher, number


def check_stream(messages: Sequence[Message], logged: Sequence[Json], matches: Matches, *, named: bool = True) -> None:
    """Each event that matches, exactly once and in the log's order; nothing else."""
    expected = [event for event in logged if matches(event)]
    assert [message.last_event_id for message in messages] == [event["cursor"] for event in expected]
    for message, event in zip(messages, expected, strict=True):
        assert json.loads(message.data) == body_of(event)
        assert message.type == (event["type"] if named else "message")


def check_deliveries(
    deliveries: Sequence[Json],
    posts: Sequence[Post],
    logged: Iterable[Json],
    matches: Matches,
    *,
    unsent: Container[str] = (),
) -> None:
    """Each event that matches has one delivery, delivered or dead, and what came at the receiver bears it out.

    *unsent* are deliveries with an attempt that may have been over before anything of it was sent.
    """
    expected = {event["id"]: event for event in logged if matches(event)}
    assert Counter(delivery["event_id"] for delivery in deliveries) == Counter(expected.keys())
    came: defaultdict[str, list[Post]] = defaultdict(list)
    for post in posts:
        came[post.event_id].append(post)
    strangers = came.keys() - expected.keys()
    assert not strangers, f"never published, or not for this subscription: {sorted(strangers)[:5]}"
    for event_id, copies in came.items():
        assert len({post.body for post in copies}) == 1, f"{event_id} came with different bytes"
        assert json.loads(copies[0].body) == body_of(expected[event_id])
    for delivery in deliveries:
        _check_delivery(delivery, came[delivery["event_id"]], unsent=delivery["id"] in unsent)


def _check_delivery(delivery: Json, copies: Sequence[Post], *, unsent: bool) -> None:
    assert delivery["attempt_count"] <= len(copies) + unsent, f"more attempts than requests: {delivery}"
    accepted = any(post.status is not None and 200 <= post.status < 300 for post in copies)
    match delivery["status"]:
        case "delivered":
            assert accepted, f"nothing accepted it: {delivery}"
        case "dead":
            assert delivery["reason"] == "exhausted"
        case status:
            raise AssertionError(f"{status} is no end: {delivery}")


def check_order(
    deliveries: Iterable[Json], posts: Sequence[Post], logged: Iterable[Json], matches: Matches
) -> dict[str, list[str]]:
    """Of each library's events none came before those ahead of it in the log had been accepted, or had died: after
    that they come no more. Answers what came of each library, in the order of first receipt, which is the log's."""
    dead = {delivery["event_id"] for delivery in deliveries if delivery["status"] == "dead"}
    last = {post.event_id: number for number, post in enumerate(posts)}
    events = [event for event in logged if matches(event)]
    library_of = {event["id"]: event["library_id"] for event in events}
    came: dict[str, list[str]] = {event["library_id"]: [] for event in events}
    accepted: set[str] = set()
    for number, post in enumerate(posts):
        ahead = came[library_of[post.event_id]]
        if post.event_id not in ahead:
            waiting = [one for one in ahead if one not in accepted and not (one in dead and last[one] < number)]
            assert not waiting, f"{post.event_id} came before {waiting[0]} was over"
            ahead.append(post.event_id)
        if post.status is not None and 200 <= post.status < 300:
            accepted.add(post.event_id)
    for library, ids in came.items():
        in_order = [event["id"] for event in events if event["library_id"] == library]
        assert ids == in_order[: len(ids)], f"{library} came in another order than the log's"
    return came


def body_of(event: Json) -> Json:
    """The event as receivers and streams get it, without its place in the log."""
    return {name: value for name, value in event.items() if name not in {"cursor", "accepted_at"}}
