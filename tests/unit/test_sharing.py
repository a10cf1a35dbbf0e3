"""Several processes send from one store: each for the lanes that it owns, whoever comes, goes, or hears nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.errors import StorageUnavailable
from gateway.ports.nodes import Hint
from gateway.sending.sharing import SharedSending
from tests.fakes.clock import FakeClock, quiet, until
from tests.fakes.deliveries import MemoryDeliveryStore, ScriptedSender, a_delivery, an_endpoint
from tests.fakes.nodes import FakeExchange, FakeMember, FakeNodes
from webhooks.deliveries import Delivery, DeliveryStatus
from webhooks.dispatcher import Dispatcher


class Process:
    """One that shares the sending."""

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster = cluster
        self.sender = ScriptedSender(cluster.clock)
        self.hints = cluster.exchange.hints()
        self.sending = SharedSending(
            cluster.nodes,
            self.hints,
            lambda holder: Dispatcher(cluster.store, self.sender, clock=cluster.clock, holder=holder),
            clock=cluster.clock,
        )

    @property
    def sent(self) -> list[str]:
        return self.sender.events

    @property
    def node_id(self) -> str:
        assert self.sending._node is not None
        return self.sending._node.id

    @property
    def member(self) -> FakeMember:
        return self._cluster.nodes.members[self.node_id]

    @property
    def owned(self) -> list[str]:
        return self._cluster.nodes.owned_by(self.node_id)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Process"]:
        task = asyncio.create_task(self.sending.run())
        await quiet()
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])


class Cluster:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.exchange = FakeExchange()
        self.nodes = FakeNodes(self.clock, self.exchange)
        self.store = MemoryDeliveryStore()
        self._made = 0

    def owe(self, endpoint_id: str = "sub_1") -> Delivery:
        if endpoint_id not in self.store.endpoints:
            self.store.add(an_endpoint(endpoint_id))
        self._made += 1
        delivery = a_delivery(self._made, endpoint_id)
        self.store.add(delivery)
        return delivery

    def owe_each(self, count: int) -> dict[str, list[Delivery]]:
        """One more to each of so many endpoints."""
        return {id_: [self.owe(id_)] for id_ in (f"sub_{number}" for number in range(1, count + 1))}

    @property
    def delivered(self) -> int:
        return sum(row.status is DeliveryStatus.DELIVERED for row in self.store.rows.values())


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def one(cluster: Cluster) -> Process:
    return Process(cluster)


@pytest.fixture
def other(cluster: Cluster) -> Process:
    return Process(cluster)


# --- one alone -------------------------------------------------------------------------------------------------------


async def test_one_alone_takes_at_once_whatever_is_offered(cluster: Cluster, one: Process) -> None:
    async with one.running():
        one.sending.offer(cluster.owe_each(20))
        await until(lambda: cluster.delivered == 20)
        one.sending.offer(cluster.owe_each(30))  # ten of them are new, in the same second
        await until(lambda: cluster.delivered == 50)
        assert len(one.owned) == one.sending.lanes == 30


async def test_what_it_owns_is_offered_as_it_is(cluster: Cluster, one: Process) -> None:
    async with one.running():
        one.sending.offer(cluster.owe_each(1))
        await until(lambda: cluster.delivered == 1)
        await quiet()
        reads = cluster.store.reads
        one.sending.offer(cluster.owe_each(1))
        await until(lambda: cluster.delivered == 2)
        assert cluster.store.reads == reads
        assert one.sending.in_flight == 0


async def test_a_lane_without_work_is_given_back_and_taken_again_when_there_is_some(
    cluster: Cluster, one: Process
) -> None:
    async with one.running():
        one.sending.offer(cluster.owe_each(1))
        await cluster.clock.advance(29)
        assert one.owned == ["sub_1"]
        await cluster.clock.advance(5)
        assert one.owned == []
        one.sending.offer(cluster.owe_each(1))
        await until(lambda: cluster.delivered == 2)
        assert cluster.nodes.owners["sub_1"].term == 2
        assert cluster.exchange.said == []


async def test_what_was_owed_before_and_what_nobody_told_of_is_found_within_a_second(
    cluster: Cluster, one: Process
) -> None:
    cluster.owe()
    async with one.running():
        await cluster.clock.advance(0.1)
        assert cluster.delivered == 1
        cluster.owe("sub_2")
        await cluster.clock.advance(1.1)
        assert cluster.delivered == 2


async def test_while_the_database_is_away_it_asks_again(cluster: Cluster, one: Process) -> None:
    async with one.running():
        cluster.nodes.fail = StorageUnavailable("gone")
        one.sending.offer(cluster.owe_each(1))
        await cluster.clock.advance(3)
        assert cluster.delivered == 0
        cluster.nodes.fail = None
        await cluster.clock.advance(2.1)
        assert cluster.delivered == 1


async def test_who_lost_its_lease_sends_nothing_more_and_begins_anew(cluster: Cluster, one: Process) -> None:
    async with one.running():
        one.sending.offer(cluster.owe_each(1))
        await until(lambda: cluster.delivered == 1)
        former = one.node_id
        one.member.lapse()
        one.sending.offer(cluster.owe_each(1))
        await until(lambda: one.sending._node is not None and one.node_id != former)
        await cluster.clock.advance(1.1)
        assert cluster.delivered == 2
        assert cluster.nodes.owners["sub_1"].term == 2


async def test_a_lane_that_fails_is_given_back_and_taken_again(cluster: Cluster, one: Process) -> None:
    async with one.running():
        one.sending.offer(cluster.owe_each(1))
        await until(lambda: cluster.delivered == 1)
        assert one.sending._node is not None
        one.sending._node.ended("sub_1")
        one.sending._node.ended("sub_unknown")
        await until(lambda: not one.owned)
        one.sending.wake(["sub_1"])
        await until(lambda: one.owned == ["sub_1"])


# --- several ---------------------------------------------------------------------------------------------------------


async def test_who_made_a_delivery_hints_at_it_to_the_owner(cluster: Cluster, one: Process, other: Process) -> None:
    async with one.running(), other.running():
        other.sending.offer(cluster.owe_each(1))
        await until(lambda: cluster.delivered == 1)
        one.sending.offer(cluster.owe_each(1))  # it finds out whose it is
        await until(lambda: cluster.delivered == 2)
        one.sending.offer(cluster.owe_each(1))  # and knows it
        await until(lambda: cluster.delivered == 3)
        assert one.sent == []
        assert len(other.sent) == 3
        assert {hint.kind for hint in cluster.exchange.said} == {"wake"}


async def test_without_hints_the_owner_finds_it_within_a_second(cluster: Cluster, one: Process, other: Process) -> None:
    cluster.exchange.is_cut = True
    async with one.running(), other.running():
        other.sending.offer(cluster.owe_each(1))
        await until(lambda: cluster.delivered == 1)
        one.sending.offer(cluster.owe_each(1))
        await cluster.clock.advance(1.1)
        assert len(other.sent) == 2


async def test_a_change_reaches_the_owner_whoever_was_asked(cluster: Cluster, one: Process, other: Process) -> None:
    async with one.running(), other.running():
        other.sending.offer(cluster.owe_each(1))
        await until(lambda: cluster.delivered == 1)
        cluster.store.endpoints["sub_1"] = an_endpoint(max_per_second=0.5)
        one.sending.changed("sub_1")
        await quiet()
        for _ in range(3):
            one.sending.wake([cluster.owe().endpoint_id])
        await cluster.clock.advance(1.9)
        assert len(other.sent) == 1


async def test_what_the_log_says_of_a_lane_is_for_its_owner_alone(
    cluster: Cluster, one: Process, other: Process
) -> None:
    async with one.running(), other.running():
        other.sending.offer(cluster.owe_each(1))
        await until(lambda: cluster.delivered == 1)
        for process in (one, other):
            process.sending.noticed("sub_1")
            process.sending.noticed("sub_2")
        await quiet()
        assert cluster.exchange.said == []
        assert (one.owned, other.owned) == ([], ["sub_1"])


async def test_who_is_added_gets_its_share_in_good_order(cluster: Cluster, one: Process, other: Process) -> None:
    one.sender.takes_seconds = other.sender.takes_seconds = 0.3
    async with one.running():
        one.sending.offer(cluster.owe_each(10))
        await cluster.clock.advance(0.2)
        assert len(one.owned) == 10
        async with other.running():
            await cluster.clock.advance(5)
            assert (len(one.owned), len(other.owned)) == (5, 5)
            one.sending.offer(cluster.owe_each(10))
            await cluster.clock.advance(2)
            assert cluster.delivered == 20
            assert len(other.sent) == 5
            assert one.sender.broken_off == 0
            before = {id_: owned.node for id_, owned in cluster.nodes.owners.items()}
            await cluster.clock.advance(10)
            assert {id_: owned.node for id_, owned in cluster.nodes.owners.items()} == before


async def test_new_lanes_are_shared_between_those_that_are_there(
    cluster: Cluster, one: Process, other: Process
) -> None:
    async with one.running(), other.running():
        await cluster.clock.advance(1.1)
        one.sending.offer(cluster.owe_each(10))
        await cluster.clock.advance(3)
        assert cluster.delivered == 10
        assert len(one.owned) == 5
        assert len(other.owned) == 5


async def test_who_has_its_share_leaves_new_lanes_to_others_at_once(
    cluster: Cluster, one: Process, other: Process
) -> None:
    async with one.running(), other.running():
        await cluster.clock.advance(1.1)
        for number in (1, 2):
            cluster.owe(f"sub_{number}")
            one.sending.wake([f"sub_{number}"])
            await until(lambda count=number: cluster.delivered == count)  # type: ignore[misc]  # bound now
        assert (one.owned, other.owned) == (["sub_1"], ["sub_2"])


async def test_what_somebody_else_gives_back_is_taken_by_who_has_room(cluster: Cluster, one: Process) -> None:
    async with one.running():
        one.hints.listener(Hint(kind="free", endpoint_ids=("sub_1",), by=one.node_id))
        one.hints.listener(Hint(kind="free", endpoint_ids=("sub_2",), by="node_9"))
        cluster.store.add(an_endpoint("sub_1"), an_endpoint("sub_2"))
        await quiet()
        assert one.owned == ["sub_2"]


async def test_who_is_left_takes_everything_at_once(cluster: Cluster, one: Process, other: Process) -> None:
    async with one.running(), other.running():
        await cluster.clock.advance(1.1)
        one.sending.offer(cluster.owe_each(10))
        await cluster.clock.advance(3)
        assert len(other.owned) == 5
        await one.sending.drain()
        await quiet()
        assert len(other.owned) == 10


async def test_what_was_left_to_others_is_taken_when_they_do_not(cluster: Cluster, one: Process) -> None:
    deaf = FakeMember("node_deaf")
    cluster.nodes.members["node_deaf"] = deaf
    async with one.running():
        await cluster.clock.advance(1.1)
        one.sending.offer(cluster.owe_each(4))
        await quiet()
        assert len(one.owned) == 2
        await cluster.clock.advance(2.1)
        assert cluster.delivered == 4


async def test_who_is_drained_gives_back_each_lane_as_it_ends_and_another_goes_on(
    cluster: Cluster, one: Process, other: Process
) -> None:
    one.sender.takes_seconds = 2
    async with one.running(), other.running():
        cluster.owe_each(4)
        one.sending.wake(cluster.store.endpoints)
        await cluster.clock.advance(1.5)
        mine = one.owned
        assert mine
        draining = asyncio.create_task(one.sending.drain())
        await quiet()
        assert one.owned == mine
        assert one.member.is_leaving
        await cluster.clock.advance(1)
        await draining
        assert cluster.nodes.owned_by("node_1") == []
        cluster.owe_each(4)
        await cluster.clock.advance(2)
        assert cluster.delivered == 8
        assert one.sender.broken_off == 0
        assert set(cluster.nodes.members) == {other.node_id}


async def test_who_is_drained_breaks_off_what_takes_too_long(cluster: Cluster, one: Process) -> None:
    one.sending._patience_seconds = 0
    one.sender.takes_seconds = 10
    async with one.running():
        one.sending.offer(cluster.owe_each(1))
        await until(lambda: one.sending.in_flight == 1)
        await one.sending.drain()
        assert one.sender.broken_off == 1
        assert cluster.nodes.members == {}
        assert cluster.nodes.owners["sub_1"].node is None


async def test_what_comes_while_it_is_drained_is_left_to_others(cluster: Cluster, one: Process) -> None:
    one.sender.takes_seconds = 2
    async with one.running():
        one.sending.offer(cluster.owe_each(1))
        await until(lambda: one.sending.in_flight == 1)
        draining = asyncio.create_task(one.sending.drain())
        await quiet()
        one.sending.offer(cluster.owe_each(2))
        assert cluster.exchange.said == [Hint(kind="wake", endpoint_ids=("sub_1", "sub_2"))]
        await cluster.clock.advance(2)  # it finds it by itself, too, and leaves it
        await draining
        assert len(one.sent) == 1
        assert "sub_2" not in cluster.nodes.owners
        assert one.sending.lanes == 0


async def test_who_is_no_node_passes_on_what_it_hears(cluster: Cluster, one: Process) -> None:
    one.sending.wake(["sub_1"])
    one.sending.offer({"sub_2": [a_delivery(1, "sub_2")]})
    one.sending.changed("sub_3")
    one.sending.noticed("sub_4")
    assert [(hint.kind, hint.endpoint_ids) for hint in cluster.exchange.said] == [
        ("wake", ("sub_1",)),
        ("wake", ("sub_2",)),
        ("changed", ("sub_3",)),
    ]
    assert (one.sending.lanes, one.sending.in_flight, one.sending.is_stuck("sub_1")) == (0, 0, False)
    await one.sending.drain()
