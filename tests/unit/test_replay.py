"""The runner of replays, over a store in memory, in virtual time."""

import asyncio
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import structlog.testing

from gateway.errors import StorageUnavailable
from gateway.events import Cursor
from gateway.filters import Filter
from gateway.ports.replays import Found, Replay, Selection, Stretch, Unfinished
from gateway.replay import AT_MOST, MOST_PENDING, MOST_UNTRIED, REST, Prospect, Replayer, portions
from gateway.storage.memory import MemoryEventLog
from gateway.subscriptions import Subscription
from tests.builders import a_draft
from tests.fakes.clock import START, FakeClock, quiet, until
from tests.fakes.deliveries import an_attempt
from tests.fakes.replays import MemoryReplayStore
from webhooks.deliveries import Delivery, DeliveryStatus, Settlement
from webhooks.endpoints import Health
from webhooks.verdicts import Delivered

EVER = START - timedelta(days=1)


class World:
    """A runner over a log that a test fills; what it offers is settled when the test says so."""

    def __init__(self, *, examined: int = 10_000) -> None:
        self.clock = FakeClock()
        self.log = MemoryEventLog(clock=self.clock.now)
        self.store = MemoryReplayStore(self.log, examined=examined)
        self.offered: list[Delivery] = []
        self.changed: list[str] = []
        self.replayer = Replayer(self.store, offer=self._offer, changed=self.changed.append, clock=self.clock)

    async def publish(self, count: int, **draft: Any) -> None:
        await self.log.append([[a_draft(**draft) for _ in range(count)]])

    def subscribe(self, id_: str = "sub_1", **fields: Any) -> Subscription:
        self.store.active[id_] = True
        return Subscription(
            **{
                "id": id_,
                "url": "https://example.com",
                "filter": Filter(),
                "libraries": None,
                "created_at": START,
                "created_by": "key_1",
                **fields,
            }
        )

    async def look(self, subscription: Subscription, asked: Filter | None = None, **fields: Any) -> Prospect:
        given = {"since": EVER, "until": None, "undelivered": False, **fields}
        return await self.replayer.look(subscription, asked or Filter(), **given)

    async def start(self, subscription: Subscription, *, max_per_second: float | None = None, **fields: Any) -> str:
        prospect = await self.look(subscription, **fields)
        replay_id = await self.replayer.start(prospect, max_per_second=max_per_second)
        assert replay_id is not None
        return replay_id

    def settle(self, *deliveries: Delivery, status: DeliveryStatus = DeliveryStatus.DELIVERED) -> None:
        for delivery in deliveries:
            self.store.settle(delivery.id, status)
        self.replayer.settled([_settlement(delivery) for delivery in deliveries])

    async def settle_all(self, count: int) -> None:
        """Whatever is offered, until so many were."""
        settled = 0
        while settled < count:
            await until(partial(lambda before: len(self.offered) > before, settled))
            batch, settled = self.offered[settled:], len(self.offered)
            self.settle(*batch)
        await quiet()

    def status(self, replay_id: str) -> str:
        kept = self.store.kept[replay_id]
        if kept.replay.is_stopped:
            return "stopped"
        return "running" if kept.finished_at is None else "finished"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.replayer.run())
        await quiet()
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    def _offer(self, made: Mapping[str, Sequence[Delivery]]) -> None:
        for deliveries in made.values():
            self.offered += deliveries


def _settlement(delivery: Delivery) -> Settlement:
    return Settlement(delivery=delivery, attempt=an_attempt(), verdict=Delivered(), health=Health(), at=START)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(autouse=True)
def logs() -> Any:
    with structlog.testing.capture_logs() as captured:
        yield captured


# --- looking ---------------------------------------------------------------------------------------------------------


async def test_a_look_counts_what_the_subscriptions_own_filter_and_the_one_asked_for_both_choose(world: World) -> None:
    subscription = world.subscribe(filter=Filter(types=frozenset({"document.*"})), libraries=frozenset({"books"}))
    await world.publish(3, type="document.added", library_id="books")
    await world.publish(5, type="document.deleted", library_id="books")
    await world.publish(7, type="custom", library_id="books")
    await world.publish(9, type="document.added", library_id="films")
    assert (await world.look(subscription)).matched == 8
    assert (await world.look(subscription, Filter(types=frozenset({"document.added", "custom"})))).matched == 3
    assert (await world.look(subscription, Filter(library_ids=frozenset({"films"})))).matched == 0


async def test_an_expression_is_tried_on_each_event_a_few_at_a_time(world: World) -> None:
    subscription = world.subscribe(filter=Filter(expression="event.data.n > 2"))
    for number in range(6):
        await world.publish(100, data=b'{"n":%d}' % number)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    neighbour = asyncio.create_task(others())
    try:
        assert (await world.look(subscription)).matched == 300
    finally:
        neighbour.cancel()
    assert turns >= 6, "the loop had turns in between"


async def test_a_look_goes_on_where_a_read_has_to_end() -> None:
    world = World(examined=7)
    subscription = world.subscribe()
    await world.publish(50)
    assert (await world.look(subscription)).matched == 50
    expressed = world.subscribe(filter=Filter(expression="true"))
    assert (await world.look(expressed)).matched == 50


async def test_a_look_at_the_undelivered_leaves_out_what_the_fan_out_will_deliver_by_itself(world: World) -> None:
    await world.publish(10)
    subscription = world.subscribe(created_cursor=Cursor(4))
    world.store.fanned_out_to = Cursor(6)
    world.store.live["sub_1", 5] = DeliveryStatus.DEAD
    world.store.live["sub_1", 6] = DeliveryStatus.DELIVERED
    prospect = await world.look(subscription, undelivered=True)
    assert (prospect.matched, prospect.stretch) == (5, Stretch(after=Cursor(0), last=Cursor(6)))
    world.store.fanned_out_to = Cursor(2)
    prospect = await world.look(subscription, undelivered=True)
    assert (prospect.matched, prospect.stretch.last) == (4, 4), "none before it was made is ever fanned out to it"
    assert (await world.look(subscription)).matched == 10


# --- running ---------------------------------------------------------------------------------------------------------


async def test_all_that_matched_is_made_in_order_and_then_it_is_finished(world: World) -> None:
    await world.publish(1_234)
    async with world.running():
        replay_id = await world.start(world.subscribe())
        await world.settle_all(1_234)
        assert [delivery.cursor for delivery in world.offered] == list(range(1, 1_235))
        assert world.status(replay_id) == "finished", "the last settlement says so, no time has passed"


async def test_what_was_published_after_it_was_asked_for_is_live_work(world: World) -> None:
    await world.publish(5)
    prospect = await world.look(world.subscribe())
    await world.publish(5)
    async with world.running():
        replay_id = await world.replayer.start(prospect, max_per_second=None)
        assert replay_id is not None
        await world.settle_all(5)
        await world.clock.advance(5)
        assert world.status(replay_id) == "finished"
    assert len(world.offered) == 5


async def test_only_so_many_wait_for_their_first_attempt(world: World) -> None:
    await world.publish(3_000)
    async with world.running():
        await world.start(world.subscribe())
        await world.clock.advance(10)
        assert len(world.offered) == MOST_UNTRIED
        world.settle(*world.offered[: MOST_UNTRIED // 2 - 1])
        await world.clock.advance(10)
        assert len(world.offered) == MOST_UNTRIED
        world.settle(world.offered[MOST_UNTRIED // 2])
        await quiet()
        assert len(world.offered) == MOST_UNTRIED * 3 // 2


async def test_those_that_wait_to_be_tried_again_keep_nothing_back_but_within_a_bound(world: World) -> None:
    await world.publish(MOST_PENDING + 2_000)
    async with world.running():
        await world.start(world.subscribe())
        await quiet()
        tried = 0
        while tried < len(world.offered):
            batch, tried = world.offered[tried:], len(world.offered)
            world.settle(*batch, status=DeliveryStatus.PENDING)
            await world.clock.advance(2)
        assert len(world.offered) == MOST_PENDING


async def test_with_a_rate_of_its_own_few_are_made_at_once(world: World) -> None:
    await world.publish(100)
    async with world.running():
        await world.start(world.subscribe(), max_per_second=2)
        await world.clock.advance(5)
        assert len(world.offered) == 10
        assert {delivery.replay_per_second for delivery in world.offered} == {2}


async def test_a_paused_subscription_is_waited_for(world: World) -> None:
    await world.publish(10)
    subscription = world.subscribe()
    world.store.active["sub_1"] = False
    async with world.running():
        replay_id = await world.start(subscription)
        await world.clock.advance(60)
        assert (world.offered, world.status(replay_id)) == ([], "running")
        world.store.active["sub_1"] = True
        await world.clock.advance(1)
        assert len(world.offered) == 10


async def test_of_one_subscription_the_oldest_goes_first_and_the_next_when_all_of_it_was_tried(world: World) -> None:
    await world.publish(600)
    subscription = world.subscribe()
    async with world.running():
        first, second = await world.start(subscription), await world.start(subscription)
        await world.clock.advance(2)
        assert {delivery.replay_id for delivery in world.offered} == {first}
        world.settle(*world.offered[:400])
        await quiet()
        world.settle(*world.offered[400:-1])
        await world.clock.advance(2)
        assert {delivery.replay_id for delivery in world.offered} == {first}
        world.settle(world.offered[-1], status=DeliveryStatus.PENDING)
        await quiet()
        assert world.offered[-1].replay_id == second
        assert world.status(first) == "running", "one of it is to be tried again"


async def test_replays_of_several_subscriptions_go_on_side_by_side(world: World) -> None:
    await world.publish(10)
    async with world.running():
        paused = world.subscribe("sub_0")
        world.store.active["sub_0"] = False
        await world.start(paused)
        for name in ("sub_1", "sub_2"):
            await world.start(world.subscribe(name))
        await world.clock.advance(1)
        assert {delivery.endpoint_id for delivery in world.offered} == {"sub_1", "sub_2"}


async def test_it_never_overtakes_the_fan_out_and_follows_it_closely(world: World) -> None:
    await world.publish(10)
    world.store.fanned_out_to = Cursor(4)
    async with world.running():
        await world.start(world.subscribe())
        await world.clock.advance(3)
        assert [delivery.cursor for delivery in world.offered] == [1, 2, 3, 4]
        world.store.fanned_out_to = Cursor(10)
        await world.clock.advance(0.1)
        assert len(world.offered) == 10


async def test_what_retention_drops_before_it_is_read_is_passed_over(world: World) -> None:
    await world.publish(20)
    async with world.running():
        replay_id = await world.start(world.subscribe(), max_per_second=1)
        await quiet()
        assert [delivery.cursor for delivery in world.offered] == [1, 2, 3, 4, 5]
        world.log.drop(Cursor(15))
        await world.settle_all(10)
        assert [delivery.cursor for delivery in world.offered[5:]] == [16, 17, 18, 19, 20]
        assert world.status(replay_id) == "finished"


async def test_a_stop_ends_it_at_once(world: World) -> None:
    await world.publish(2_000)
    async with world.running():
        replay_id = await world.start(world.subscribe())
        await quiet()
        assert await world.store.stop(replay_id) == frozenset({"sub_1"})
        world.settle(*world.offered[:1])
        await world.clock.advance(5)
        assert len(world.offered) == MOST_UNTRIED
        assert world.status(replay_id) == "stopped"


async def test_a_stop_that_was_cut_short_is_ended_and_the_lane_hears_of_it(world: World) -> None:
    await world.publish(10)
    async with world.running():
        replay_id = await world.start(world.subscribe())
        await quiet()
        kept = world.store.kept[replay_id]
        kept.replay = replace(kept.replay, is_stopped=True)
        await world.clock.advance(1)
        assert world.store.pending(replay_id) == []
        assert world.changed == ["sub_1"]
        assert kept.finished_at is not None


async def test_a_deleted_subscription_ends_it_when_what_it_owed_is_cancelled(world: World) -> None:
    await world.publish(2_000)
    async with world.running():
        replay_id = await world.start(world.subscribe())
        await quiet()
        del world.store.active["sub_1"]
        await world.clock.advance(2)
        assert len(world.offered) == MOST_UNTRIED
        assert world.store.kept[replay_id].finished_at is None
        world.store.cancel(replay_id)  # as housekeeping does
        await world.clock.advance(2)
        assert world.status(replay_id) == "stopped"


async def test_one_of_nothing_is_finished_at_once(world: World) -> None:
    async with world.running():
        replay_id = await world.start(world.subscribe())
        await quiet()
        assert world.status(replay_id) == "finished"


async def test_a_database_that_fails_delays_and_loses_nothing(world: World) -> None:
    await world.publish(800)
    world.store.faults = [StorageUnavailable("no"), StorageUnavailable("no")]
    async with world.running():
        replay_id = await world.start(world.subscribe())
        await world.clock.advance(3)
        assert len(world.offered) == MOST_UNTRIED
        world.store.faults = [StorageUnavailable("no")]
        world.settle(*world.offered)
        await world.clock.advance(2)
        assert [delivery.cursor for delivery in world.offered] == list(range(1, 801))
        world.settle(*world.offered[MOST_UNTRIED:])
        await world.clock.advance(1)
        assert world.status(replay_id) == "finished"


async def test_a_runner_that_starts_anew_goes_on_where_the_store_is(world: World) -> None:
    await world.publish(900)
    async with world.running():
        replay_id = await world.start(world.subscribe())
        await quiet()
    for delivery in world.offered:
        world.store.settle(delivery.id, DeliveryStatus.DELIVERED)
    async with world.running():
        assert [delivery.cursor for delivery in world.offered] == list(range(1, 901))
        world.settle(*world.offered[MOST_UNTRIED:])
        await quiet()
        assert world.status(replay_id) == "finished"


async def test_a_fault_of_ours_with_one_does_not_stop_its_neighbours(
    logs: list[MutableMapping[str, Any]],
) -> None:
    world = World()
    find, tries = world.store.find, 0

    class Poisoned(MemoryReplayStore):
        async def find(self, selection: Selection, stretch: Stretch, *, limit: int) -> Found:
            nonlocal tries
            if selection.subscription_id == "sub_1" and stretch.last == 10:
                tries += 1
                raise RuntimeError("a fault of ours")
            return await find(selection, stretch, limit=limit)

    await world.publish(10)
    one, two = world.subscribe("sub_1"), world.subscribe("sub_2")
    prospects = [await world.look(one), await world.look(two)]
    poisoned = Poisoned(world.log)
    poisoned.active = world.store.active
    replayer = Replayer(poisoned, offer=world._offer, changed=world.changed.append, clock=world.clock)
    task = asyncio.create_task(replayer.run())
    for prospect in prospects:
        await replayer.start(prospect, max_per_second=None)
    await world.clock.advance(REST.total_seconds() - 1)
    assert {delivery.endpoint_id for delivery in world.offered} == {"sub_2"}
    assert tries == 1
    await world.clock.advance(2)
    assert tries == 2
    task.cancel()
    await asyncio.wait([task])
    assert [entry["replay"] for entry in logs if entry["event"] == "replay.failed"] == ["rpl_0000"] * 2


# --- whose turn it is ------------------------------------------------------------------------------------------------


def a_replay(id_: str, **fields: Any) -> Replay:
    selection = Selection(subscription_id="sub_1", own=Filter(), libraries=None)
    stretch = Stretch(after=Cursor(0), last=Cursor(10_000))
    given = {"subscription_id": "sub_1", "selection": selection, "stretch": stretch, "is_active": True}
    return Replay(id=id_, **{**given, **fields})


MADE = Stretch(after=Cursor(9), last=Cursor(9))


@pytest.mark.parametrize(
    ("replays", "expected"),
    [
        ([a_replay("a")], [("a", MOST_UNTRIED)]),
        ([a_replay("a", untried=MOST_UNTRIED // 2)], [("a", MOST_UNTRIED // 2)]),
        ([a_replay("a", untried=MOST_UNTRIED // 2 + 1)], []),
        ([a_replay("a", pending=MOST_PENDING - 3)], [("a", 3)]),
        ([a_replay("a", pending=MOST_PENDING)], []),
        ([a_replay("a", max_per_second=4.0)], [("a", 20)]),
        ([a_replay("a", max_per_second=0.01)], [("a", 2)]),
        ([a_replay("a", max_per_second=0.01, untried=1)], [("a", 1)]),
        ([a_replay("a", max_per_second=99_999.0)], [("a", MOST_UNTRIED)]),
        ([a_replay("a", is_active=False), a_replay("b")], []),
        ([a_replay("a", is_stopped=True), a_replay("b")], [("b", MOST_UNTRIED)]),
        ([a_replay("a", is_orphaned=True)], []),
        ([a_replay("a", stretch=MADE, untried=1), a_replay("b")], []),
        ([a_replay("a", stretch=MADE, pending=9), a_replay("b")], [("b", MOST_UNTRIED)]),
        ([Replay(id="a", subscription_id="sub_1", pending=9, untried=9), a_replay("b")], [("b", MOST_UNTRIED)]),
    ],
)
def test_a_portion_is_as_large_as_there_is_room_for_it(replays: list[Replay], expected: list[tuple[str, int]]) -> None:
    unfinished = Unfinished(replays=tuple(replays), fanned_out=Cursor(10_000))
    assert [(replay.id, room) for replay, room in portions(unfinished)] == expected


def test_so_many_at_most_are_asked_of_the_store() -> None:
    assert AT_MOST == 100  # as the API's description says
