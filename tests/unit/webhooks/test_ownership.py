"""When a lease is held, how many lanes are a fair share, and what a lane does that others may own next."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from tests.fakes.clock import START, FakeClock, until
from tests.fakes.deliveries import MemoryDeliveryStore, an_endpoint
from tests.fakes.world import World
from webhooks.deliveries import DeliveryStatus, Settlement
from webhooks.endpoints import Ordering
from webhooks.ownership import LEASE_SECONDS, Hold, Lease, share, surplus


class Stopwatch:
    """A clock of leases."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Stopwatch:
    return Stopwatch()


# --- the lease -------------------------------------------------------------------------------------------------------


def test_it_is_held_for_its_seconds_from_before_it_was_asked_for(clock: Stopwatch) -> None:
    lease = Lease(clock.now, clock=clock)
    clock.now += LEASE_SECONDS - 0.01
    assert (lease.is_held, round(lease.seconds_left, 6)) == (True, 0.01)
    clock.now += 0.01
    assert (lease.is_held, lease.seconds_left) == (False, 0)


def test_an_answer_that_takes_long_makes_it_no_longer(clock: Stopwatch) -> None:
    asked_at = clock.now
    clock.now += 4
    lease = Lease(asked_at, clock=clock)
    clock.now += LEASE_SECONDS - 4
    assert not lease.is_held


def test_it_is_renewed_from_when_that_was_asked_for(clock: Stopwatch) -> None:
    lease = Lease(clock.now, clock=clock)
    clock.now += 3
    asked_at = clock.now
    clock.now += 2
    assert lease.renew(asked_at)
    clock.now = asked_at + LEASE_SECONDS - 0.01
    assert lease.is_held
    clock.now = asked_at + LEASE_SECONDS
    assert not lease.is_held


def test_a_renewal_that_is_answered_too_late_is_none(clock: Stopwatch) -> None:
    lease = Lease(clock.now, clock=clock)
    asked_at = clock.now + LEASE_SECONDS - 1
    clock.now += LEASE_SECONDS
    assert not lease.renew(asked_at)
    assert not lease.is_held


def test_who_slept_past_its_lease_cannot_renew_it(clock: Stopwatch) -> None:
    lease = Lease(clock.now, clock=clock)
    clock.now += 3_600
    assert not lease.renew(clock.now)
    assert not lease.is_held


def test_answers_that_come_in_another_order_shorten_nothing(clock: Stopwatch) -> None:
    lease = Lease(clock.now, clock=clock)
    assert lease.renew(clock.now + 5)
    assert lease.renew(clock.now + 2)
    clock.now += LEASE_SECONDS + 4
    assert lease.is_held


def test_it_ends_when_its_giver_says_so(clock: Stopwatch) -> None:
    lease = Lease(clock.now, clock=clock)
    lease.end()
    assert not lease.is_held
    assert not lease.renew(clock.now)


# --- the share -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lanes", "nodes", "fair"), [(0, 1, 0), (1, 1, 1), (7, 2, 4), (8, 2, 4), (1, 3, 1), (100, 3, 34), (5, 0, 5)]
)
def test_a_share_is_as_many_as_each_gets(lanes: int, nodes: int, fair: int) -> None:
    assert share(lanes, nodes) == fair


@pytest.mark.parametrize(
    ("owned", "fair", "more"), [(0, 0, 0), (4, 4, 0), (5, 4, 1), (8, 4, 4), (110, 100, 0), (111, 100, 11), (1, 0, 1)]
)
def test_what_is_more_than_the_share_is_given_back_but_for_a_tenth(owned: int, fair: int, more: int) -> None:
    assert surplus(owned, fair) == more


# --- lanes that are held ---------------------------------------------------------------------------------------------


class Owner:
    """A holder that a test steers."""

    def __init__(self) -> None:
        self.may_send = True
        self.holds: dict[str, Hold] = {}
        self.wanted: list[str] = []
        self.over: list[str] = []

    def hold(self, endpoint_id: str) -> Hold | None:
        if endpoint_id not in self.holds:
            self.wanted.append(endpoint_id)
        return self.holds.get(endpoint_id)

    def ended(self, endpoint_id: str) -> None:
        self.over.append(endpoint_id)


class SlowStore(MemoryDeliveryStore):
    """Settles when a test lets it."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.settled: list[Settlement] = []
        self.takes_seconds = 0.0
        self._clock = clock

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        if self.takes_seconds:
            await self._clock.sleep(self.takes_seconds)
        self.settled += settlements
        await super().settle(settlements)


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def world(owner: Owner) -> World:
    clock = FakeClock()
    return World(holder=owner, clock=clock, store=SlowStore(clock))


async def test_what_is_not_held_is_not_sent_but_asked_for(world: World, owner: Owner) -> None:
    world.store.add(an_endpoint("sub_1"), an_endpoint("sub_2"))
    world.owe(1, "sub_1")
    world.owe(1, "sub_2")
    owner.holds["sub_1"] = Hold(term=1)
    async with world.running():
        await world.clock.advance(1.5)
        assert [delivery.endpoint_id for _, delivery in world.receiver.sent] == ["sub_1"]
        assert set(owner.wanted) == {"sub_2"}
        owner.holds["sub_2"] = Hold(term=1)
        world.dispatcher.wake(["sub_2"])
        await until(lambda: len(world.receiver.sent) == 2)


async def test_nothing_begins_once_the_lease_has_lapsed(world: World, owner: Owner) -> None:
    world.store.add(an_endpoint(max_in_flight=2))
    world.owe(6)
    owner.holds["sub_1"] = Hold(term=1)
    world.receiver.takes_seconds = 1
    async with world.running():
        await world.clock.advance(0.5)
        assert len(world.receiver.sent) == 2
        owner.may_send = False
        reads = world.store.reads
        await world.clock.advance(60)
        assert len(world.receiver.sent) == 2
        assert world.store.reads <= reads + 2
        assert world.count(DeliveryStatus.DELIVERED) == 2


async def test_nothing_is_sent_that_was_taken_before_the_lease_lapsed(world: World, owner: Owner) -> None:
    world.store.add(an_endpoint())
    owner.holds["sub_1"] = Hold(term=1)
    async with world.running():
        world.dispatcher.wake(["sub_1"])
        await world.clock.quiet()
        [owed] = world.owe(1)
        world.dispatcher.offer({"sub_1": [owed]})  # starts a worker, which has not run yet
        owner.may_send = False
        await world.clock.quiet()
        assert world.receiver.sent == []


async def test_settlements_say_in_which_term_they_were_begun(world: World, owner: Owner) -> None:
    world.store.add(an_endpoint())
    world.owe(1)
    owner.holds["sub_1"] = Hold(term=7)
    async with world.running():
        await world.clock.advance(0)
        assert isinstance(world.store, SlowStore)
        await until(lambda: bool(world.count(DeliveryStatus.DELIVERED)))
        assert [settlement.term for settlement in world.store.settled] == [7]


@pytest.mark.parametrize(("ago_seconds", "first"), [(0.0, 2.0), (1.5, 0.5), (2.0, 0.0), (60.0, 0.0)])
async def test_a_rate_goes_on_from_when_others_may_have_sent(
    world: World, owner: Owner, ago_seconds: float, first: float
) -> None:
    world.store.add(an_endpoint(max_per_second=0.5))
    world.owe(3)
    owner.holds["sub_1"] = Hold(term=2, quiet_since=START - timedelta(seconds=ago_seconds))
    async with world.running():
        await world.clock.advance(10)
        assert world.receiver.seconds() == [first, first + 2, first + 4]


async def test_a_replays_rate_goes_on_too(world: World, owner: Owner) -> None:
    world.store.add(an_endpoint())
    world.owe(2, replay_id="rpl_1", replayed=True, replay_per_second=0.5)
    owner.holds["sub_1"] = Hold(term=2, quiet_since=START)
    async with world.running():
        await world.clock.advance(10)
        assert world.receiver.seconds() == [2.0, 4.0]


@pytest.mark.parametrize("ordering", list(Ordering))
async def test_a_lane_that_leaves_ends_when_all_it_sent_is_stored(
    world: World, owner: Owner, ordering: Ordering
) -> None:
    assert isinstance(world.store, SlowStore)
    world.store.add(an_endpoint(max_in_flight=1, ordering=ordering))
    world.owe(5)
    owner.holds["sub_1"] = Hold(term=1)
    world.receiver.takes_seconds, world.store.takes_seconds = 1, 5
    async with world.running():
        await world.clock.advance(0.5)
        world.dispatcher.leave("sub_1")
        del owner.holds["sub_1"]
        await world.clock.advance(1)
        assert world.receiver.in_flight == 0
        assert owner.over == []
        await world.clock.advance(4.4)
        assert owner.over == []
        await world.clock.advance(0.2)
        assert owner.over == ["sub_1"]
        assert world.count(DeliveryStatus.DELIVERED) == len(world.receiver.sent) == 1


async def test_to_leave_what_is_asleep_does_nothing(world: World, owner: Owner) -> None:
    async with world.running():
        world.dispatcher.leave("sub_1")
    assert owner.over == []


async def test_a_lane_without_work_ends_and_says_so(world: World, owner: Owner) -> None:
    world.store.add(an_endpoint())
    owner.holds["sub_1"] = Hold(term=1)
    async with world.running():
        world.dispatcher.wake(["sub_1"])
        await world.clock.advance(29)
        assert owner.over == []
        await world.clock.advance(2)
        assert owner.over == ["sub_1"]
