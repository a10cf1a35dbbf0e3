"""Every hot statement goes by its index: its cost stays flat as rows grow.

The statements are those that the stores really send, explained by SQLite with the parameters they were sent with.
"""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from gateway.event_types import EventTypeRecord
from gateway.events import Cursor, LoggedEvent
from gateway.filters import Filter
from gateway.ports.desk import DeliveryQuery, RedeliverQuery
from gateway.ports.log import HistoryQuery
from gateway.ports.replays import Selection, Stretch
from gateway.rollups.rollups import Grouping, Interval, Place, RollupQuery
from gateway.storage.event_types import SqlEventTypeStore
from gateway.storage.folding import Folding
from gateway.storage.retention import SqlRetentionStore
from gateway.storage.rollups import SqlRollups
from gateway.subscriptions import Subscription
from tests.builders import NOON, a_draft
from tests.storage.arrange import Stores, a_settlement, a_subscription
from tests.storage.listening import listening
from webhooks.deliveries import Delivery, DeliveryStatus
from webhooks.verdicts import Retry

LATER = NOON + timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Scene:
    """One of everything there is."""

    stores: Stores
    subscription: Subscription
    event: LoggedEvent
    pending: Delivery
    dead: Delivery

    @classmethod
    async def set(cls, stores: Stores) -> "Scene":
        subscription = await stores.subscribe()
        event_, _ = await stores.publish(a_draft(id="a"), a_draft())
        await stores.owe([event_, event_], subscription)
        pending, dead = await stores.due(subscription)
        await stores.kill(dead)
        return cls(stores, subscription, event_, pending, dead)


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


Work = Callable[[Scene], Awaitable[object]]


def listing(**question: Any) -> Work:
    return lambda scene: scene.stores.desk.list(DeliveryQuery(libraries=None, **question))


def history(**question: Any) -> Work:
    return lambda scene: scene.stores.log.history(HistoryQuery(libraries=None, **{"filter": Filter(), **question}))


async def settle(scene: Scene) -> None:
    await scene.stores.deliveries.settle([a_settlement(scene.pending, Retry(NOON), disable="failing")])


async def fan_out(scene: Scene) -> None:
    fanout, ids = scene.stores.fanout, [scene.subscription.id]
    place = await fanout.place()
    ahead = replace(place, ahead=Cursor(place.cursor + 1), behind=dict.fromkeys(ids, place.cursor))
    assert await fanout.advance(place, ahead, [(scene.event, ids)]) is not None
    assert await fanout.advance(ahead, place, [(scene.event, ids)]) is not None


async def cancel_orphans(scene: Scene) -> None:
    await scene.stores.subscriptions.delete(scene.subscription.id)
    await scene.stores.subscriptions.cancel_orphans(10)


async def redeliver(scene: Scene) -> None:
    desk = scene.stores.desk
    replay = await desk.redeliver(RedeliverQuery(libraries=None, subscription_id=scene.subscription.id), now=NOON)
    await desk.replay(replay.id)
    await desk.stop_replay(replay.id)


ALL_TIME = Stretch(after=Cursor(0), last=Cursor(99))


def selection(scene: Scene, **fields: Any) -> Selection:
    return Selection(**{"subscription_id": scene.subscription.id, "own": Filter(), "libraries": None, **fields})


def looking(**fields: Any) -> Work:
    async def look(scene: Scene) -> None:
        await scene.stores.replays.stretch(NOON, None)
        await scene.stores.replays.fanned_out()
        await scene.stores.replays.count(selection(scene, **fields), ALL_TIME)
        await scene.stores.replays.find(selection(scene, **fields), ALL_TIME, limit=9)

    return look


async def replay(scene: Scene) -> None:
    replays = scene.stores.replays
    chosen = selection(scene, undelivered=True)
    id_ = await replays.start(chosen, ALL_TIME, matched=1, max_per_second=None, now=NOON, at_most=9)
    assert id_ is not None
    [begun] = (await replays.unfinished()).replays
    await replays.make(begun, [scene.event], to=Cursor(1))
    await replays.unfinished()
    await replays.stop(id_)
    await replays.finish([id_])


async def steer(scene: Scene) -> None:
    desk = scene.stores.desk
    await desk.retry(scene.pending.id, now=NOON)
    await desk.cancel(scene.pending.id, now=NOON)
    await desk.attempts(scene.dead.id)
    await desk.forget(scene.dead.id)


def rollups(**question: Any) -> Work:
    asked = {"interval": Interval.HOUR, "grouping": Grouping.NOTHING, "since": NOON, "libraries": None, **question}
    return lambda scene: SqlRollups(scene.stores.database).list(RollupQuery(**asked))


async def gather(scene: Scene) -> None:
    await Folding(scene.stores.database).gather()


async def fold(scene: Scene) -> None:
    await Folding(scene.stores.database).fold()


async def drop_old(scene: Scene) -> None:
    folding = Folding(scene.stores.database)
    await folding.fold()
    await folding.drop_old(NOON + timedelta(days=900))


PLACE = Place(start=NOON, group="a")


async def event_types(scene: Scene) -> None:
    store = SqlEventTypeStore(scene.stores.database)
    for name in ("a", "b"):
        await store.put(EventTypeRecord(type=name))
    await store.list(limit=10, before="b")


async def drop_events(scene: Scene) -> None:
    await scene.stores.subscriptions.delete(scene.subscription.id)
    dropped = await SqlRetentionStore(scene.stores.database).drop_events(
        before=LATER, passed=Cursor(9), limit=10, max_bytes=2**20, most_owed=10
    )
    assert (dropped.events, len(dropped.owing)) == (3, 1)


async def drop_deliveries(scene: Scene) -> None:
    assert await SqlRetentionStore(scene.stores.database).drop_deliveries(before=LATER, limit=10) == 1


async def drop_others(scene: Scene) -> None:
    store = SqlRetentionStore(scene.stores.database)
    await store.drop_attempts(before=LATER, limit=10)
    await store.drop_remains(before=LATER, limit=10)


DUE, ORDER = "deliveries_due", "deliveries_in_order"
HOT: dict[str, tuple[Work, set[str]]] = {
    # What is done, and all that carries it beside primary keys.
    "read a page": (lambda scene: scene.stores.log.read(Cursor(0)), set()),
    "find an event": (lambda scene: scene.stores.log.get("a"), {"events_id"}),
    "publish": (lambda scene: scene.stores.log.append([[a_draft(id="b")]]), {"events_id", "SCAN log"}),
    "history": (history(), {"SCAN log"}),
    "history of a time": (history(since=NOON, until=NOON, order="asc"), {"SCAN log"}),
    "history of a type": (history(filter=Filter(types=frozenset({"a.*"}))), {"SCAN log"}),
    "fan out": (fan_out, set()),
    "due": (lambda scene: scene.stores.deliveries.due("s", now=NOON, limit=10), {DUE, "deliveries_forced"}),
    "what is due, whole": (lambda scene: scene.stores.due(scene.subscription), {DUE, "deliveries_forced"}),
    "queue": (
        lambda scene: scene.stores.deliveries.queue("s", limit=10, per_library=8),
        {ORDER, "SCAN libraries", "SCAN heads", "USE TEMP B-TREE FOR ORDER BY"},  # as many as libraries
    ),
    "lanes": (lambda scene: scene.stores.deliveries.lanes(), {DUE, "SCAN subscriptions"}),  # all are asked for
    "endpoint": (lambda scene: scene.stores.deliveries.endpoint("s"), set()),
    "settle": (settle, {"SCAN log"}),
    "a key by its hash": (lambda scene: scene.stores.keys.by_hash(b"?"), {"keys_hash"}),
    "subscribe": (
        lambda scene: scene.stores.subscriptions.create(a_subscription(), at_most=100),
        {"subscriptions_created_by", "SCAN log"},
    ),
    "a delivery": (lambda scene: scene.stores.desk.get("d"), set()),
    "all deliveries": (listing(), {"sqlite_autoindex_deliveries_1"}),
    "more deliveries": (listing(resume="z"), set()),
    "dead letters": (listing(status=DeliveryStatus.DEAD), {"deliveries_dead"}),
    "more dead letters": (listing(status=DeliveryStatus.DEAD, resume="z"), {"deliveries_dead"}),
    "dead letters of one": (
        listing(status=DeliveryStatus.DEAD, subscription_id="s", resume="z"),
        {"deliveries_dead_of"},
    ),
    "deliveries of one": (listing(subscription_id="s", resume="z"), {"deliveries_subscription"}),
    "deliveries of an event": (
        listing(event_id="e", subscription_id="s", status=DeliveryStatus.DEAD, resume="z"),
        {"deliveries_event"},
    ),
    "what became of an event": (
        lambda scene: scene.stores.desk.outcomes(scene.event, libraries=None, limit=50, before=None),
        {
            "deliveries_event",
            "sqlite_autoindex_subscriptions_1",
            *("SCAN numbered", "SCAN (subquery-3)", "USE TEMP B-TREE FOR ORDER BY"),  # as many as the event has
        },
    ),
    "retry, cancel, forget": (steer, set()),
    "redeliver": (redeliver, {"deliveries_dead_of", "deliveries_replay", "SCAN log"}),
    "look for a replay": (looking(), {"SCAN log"}),
    "look for the undelivered": (looking(undelivered=True), {"SCAN log", "deliveries_event"}),
    "replay": (
        replay,
        {"SCAN log", "SCAN anon_1", "SCAN anon_2", "deliveries_replay", "replays_unfinished", "deliveries_event"},
    ),
    "due, replayed": (
        lambda scene: scene.stores.deliveries.due("s", now=NOON, limit=10, replayed=True),
        {DUE, "deliveries_forced"},
    ),
    # Tallies are all that was settled within seconds.
    "gather": (gather, {"SCAN tallies"}),
    "fold": (fold, {"SCAN tallies"}),
    "drop old rollups": (drop_old, {"rollups_newest", "SCAN tallies"}),
    "rollups of all": (rollups(until=NOON, resume=PLACE), {"SCAN tallies"}),
    "rollups of one": (rollups(subscription_id="s", grouping=Grouping.TYPE, resume=PLACE), {"SCAN tallies"}),
    "rollups of each": (
        rollups(grouping=Grouping.SUBSCRIPTION, until=NOON, resume=PLACE),
        {"SCAN tallies", "rollups_newest"},
    ),
    "rollups for a confined key": (
        rollups(grouping=Grouping.LIBRARY, libraries=frozenset({"a"})),
        {"SCAN tallies", "rollups_newest"},
    ),
    "how a subscription stands": (
        lambda scene: SqlRollups(scene.stores.database).standing("s", since=NOON),
        {"SCAN tallies", DUE},
    ),
    # As many as there are subscriptions.
    "how all stand": (
        lambda scene: SqlRollups(scene.stores.database).overview(),
        {"SCAN delivery_counts", "SCAN subscriptions", "lanes_open", DUE},
    ),
    "event types": (event_types, {"event_types_created", "SCAN log"}),
    "drop events": (drop_events, {"deliveries_leaving", "SCAN log"}),
    "drop deliveries": (drop_deliveries, {"deliveries_settled"}),
    "drop the rest": (
        drop_others,
        {
            "attempts_started",
            "replays_created",
            "deliveries_replay",
            "tombstones_cursor",
            "deliveries_subscription",
            "SCAN log",
        },
    ),
    "cancel orphans": (cancel_orphans, {DUE, "tombstones_owing", "SCAN log"}),
}


@asynccontextmanager
async def explained(stores: Stores, path: Path) -> AsyncIterator[list[str]]:
    """How SQLite goes about each statement that is sent meanwhile."""
    steps: list[str] = []
    with listening(stores.database) as sent:
        yield steps
    with closing(sqlite3.connect(path)) as connection:
        for statement, parameters in sent:
            if statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
                steps += [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]


def carrier(step: str) -> str | None:
    """The index that *step* goes by, the step itself when it looks at everything, None for a row by its key."""
    if " INDEX " in step:
        name = step.split(" INDEX ")[1].split(maxsplit=1)[0]
        is_by_key = name.startswith("sqlite_autoindex") and step.startswith("SEARCH")
        return None if is_by_key else name
    if "CONSTANT ROW" in step:
        return None  # those that the statement itself brings
    return step if step.startswith(("SCAN", "USE TEMP B-TREE")) else None


@pytest.mark.parametrize("name", HOT)
async def test_it_goes_by_its_index(stores: Stores, path: Path, name: str) -> None:
    work, carriers = HOT[name]
    scene = await Scene.set(stores)
    async with explained(stores, path) as steps:
        await work(scene)
    assert {carrier(step) for step in steps} - {None} == carriers, "\n".join(steps)
    assert steps


async def test_reading_everything_would_be_noticed(stores: Stores, path: Path) -> None:
    async with explained(stores, path) as steps, stores.database.reading() as connection:
        await connection.execute(text("SELECT * FROM deliveries WHERE type = 'a' ORDER BY due_at"))
    assert {carrier(step) for step in steps} == {"SCAN deliveries", "USE TEMP B-TREE FOR ORDER BY"}
