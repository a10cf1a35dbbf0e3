"""Nodes and the lanes that they own, in PostgreSQL: who may take which when, and what is stored of a former term."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gateway.ports.nodes import HINTS_CHANNEL, Membership, Nodes, Taken
from gateway.storage.engines import database_of
from tests.builders import NOON, HandClock
from tests.servers.postgres import PostgresServer, postgres_server
from tests.storage.arrange import Stores, a_settlement, an_attempt
from tests.storage.sessions import is_waited_for, session
from webhooks.deliveries import DeliveryStatus
from webhooks.verdicts import Retry


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture
async def neighbour(url: str, clock: HandClock) -> AsyncIterator[Stores]:
    """The stores of another process."""
    async with database_of(url, clock=clock) as database:
        yield Stores.over(database, clock)


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """One that may be killed."""
    with postgres_server() as server:
        yield server


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def nodes_of(stores: Stores) -> Nodes:
    assert stores.database.nodes is not None
    return stores.database.nodes


def quiet_seconds(taken: Taken) -> float:
    assert taken.quiet_for is not None
    return taken.quiet_for.total_seconds()


async def execute(url: str, statement: str, *values: Any) -> Any:
    async with session(url) as connection:
        return await connection.fetchval(statement, *values)


async def vanish(url: str, member: Membership, *, ago_seconds: float) -> None:
    """*member*'s lease has lapsed so long ago."""
    lapsed = (
        "UPDATE nodes SET expires_at = ((extract(epoch FROM clock_timestamp()) - $2) * 1000000)::bigint WHERE id = $1"
    )
    await execute(url, lapsed, member.node_id, ago_seconds)


# --- owning ----------------------------------------------------------------------------------------------------------


async def test_a_lane_is_of_one_node_at_a_time(stores: Stores, neighbour: Stores, stack: AsyncExitStack) -> None:
    id_ = (await stores.subscribe()).id
    one = await stack.enter_async_context(nodes_of(stores).joined())
    other = await stack.enter_async_context(nodes_of(neighbour).joined())
    assert await nodes_of(stores).free(one.node_id, [id_]) == {id_}
    taken = await nodes_of(stores).take(one.node_id, [id_])
    assert (taken[id_].term, taken[id_].quiet_for) == (1, None)
    assert await nodes_of(neighbour).free(other.node_id, [id_]) == set()
    assert await nodes_of(neighbour).take(other.node_id, [id_]) == {}


async def test_of_many_that_take_at_once_each_lane_has_one_owner(
    stores: Stores, neighbour: Stores, stack: AsyncExitStack
) -> None:
    ids = [(await stores.subscribe()).id for _ in range(20)]
    members = [
        (nodes_of(which), await stack.enter_async_context(nodes_of(which).joined())) for which in (stores, neighbour)
    ]
    for _ in range(5):
        answers = await asyncio.gather(*(nodes.take(member.node_id, ids) for nodes, member in members for _ in "ab"))
        # What a node has itself it may take again: so within one node an answer may repeat another.
        owned = [set(answers[0]) | set(answers[1]), set(answers[2]) | set(answers[3])]
        assert owned[0] & owned[1] == set()
        for (nodes, member), some in zip(members, owned, strict=True):
            await nodes.give_back(member.node_id, sorted(some), tell=False)


async def test_what_was_given_back_is_free_with_a_higher_term_and_the_time_since(
    stores: Stores, neighbour: Stores, stack: AsyncExitStack, url: str
) -> None:
    id_ = (await stores.subscribe()).id
    one = await stack.enter_async_context(nodes_of(stores).joined())
    other = await stack.enter_async_context(nodes_of(neighbour).joined())
    await nodes_of(stores).take(one.node_id, [id_])
    await nodes_of(stores).give_back(one.node_id, [id_], tell=False)
    await execute(url, "UPDATE lane_owners SET released_at = released_at - 7000000")
    taken = await nodes_of(neighbour).take(other.node_id, [id_])
    assert taken[id_].term == 2
    assert 7 <= quiet_seconds(taken[id_]) < 9


async def test_who_gives_back_what_is_anothers_gives_back_nothing(
    stores: Stores, neighbour: Stores, stack: AsyncExitStack
) -> None:
    id_ = (await stores.subscribe()).id
    one = await stack.enter_async_context(nodes_of(stores).joined())
    other = await stack.enter_async_context(nodes_of(neighbour).joined())
    await nodes_of(stores).take(one.node_id, [id_])
    await nodes_of(neighbour).give_back(other.node_id, [id_], tell=False)
    assert await nodes_of(neighbour).free(other.node_id, [id_]) == set()


@pytest.mark.parametrize(("ago_seconds", "is_free"), [(-5, False), (5, False), (19, False), (21, True)])
async def test_a_vanished_nodes_lane_is_free_when_no_attempt_of_it_can_be_left(
    stores: Stores, neighbour: Stores, stack: AsyncExitStack, url: str, *, ago_seconds: float, is_free: bool
) -> None:
    id_ = (await stores.subscribe(timeout_seconds=20.0)).id
    one = await stack.enter_async_context(nodes_of(stores).joined())
    other = await stack.enter_async_context(nodes_of(neighbour).joined())
    await nodes_of(stores).take(one.node_id, [id_])
    await vanish(url, one, ago_seconds=ago_seconds)
    assert await nodes_of(neighbour).free(other.node_id, [id_]) == ({id_} if is_free else set())
    taken = await nodes_of(neighbour).take(other.node_id, [id_])
    assert set(taken) == ({id_} if is_free else set())
    if is_free:
        assert 21 <= quiet_seconds(taken[id_]) < 23


async def test_who_took_a_lane_and_never_heard_so_may_take_it_again(stores: Stores, stack: AsyncExitStack) -> None:
    id_ = (await stores.subscribe()).id
    one = await stack.enter_async_context(nodes_of(stores).joined())
    await nodes_of(stores).take(one.node_id, [id_])
    assert await nodes_of(stores).free(one.node_id, [id_]) == {id_}
    again = (await nodes_of(stores).take(one.node_id, [id_]))[id_]
    assert again.term == 2
    assert quiet_seconds(again) < 1


async def test_a_deleted_subscriptions_lane_is_nobodys(stores: Stores, stack: AsyncExitStack) -> None:
    id_ = (await stores.subscribe()).id
    await stores.subscriptions.delete(id_)
    one = await stack.enter_async_context(nodes_of(stores).joined())
    assert await nodes_of(stores).free(one.node_id, [id_]) == set()
    assert await nodes_of(stores).take(one.node_id, [id_]) == {}


# --- being a node ----------------------------------------------------------------------------------------------------


async def test_nodes_and_their_lanes_are_counted_while_they_are_there_to_stay(
    stores: Stores, neighbour: Stores, stack: AsyncExitStack, url: str
) -> None:
    ids = [(await stores.subscribe()).id for _ in range(3)]
    one = await stack.enter_async_context(nodes_of(stores).joined())
    other = await stack.enter_async_context(nodes_of(neighbour).joined())
    await nodes_of(stores).take(one.node_id, ids)

    async def counted() -> tuple[int, int]:
        census = await nodes_of(neighbour).census()
        return census.nodes, census.lanes

    assert await counted() == (2, 3)
    await one.depart()
    assert await counted() == (1, 0)
    await vanish(url, other, ago_seconds=1)
    assert await counted() == (0, 0)


async def test_at_its_end_all_that_it_owns_is_free_and_the_others_are_told(
    stores: Stores, neighbour: Stores, stack: AsyncExitStack, url: str
) -> None:
    ids = [(await stores.subscribe()).id for _ in range(3)]
    other = await stack.enter_async_context(nodes_of(neighbour).joined())
    heard: list[str] = []
    listener = await stack.enter_async_context(session(url))
    await listener.add_listener(HINTS_CHANNEL, lambda *arguments: heard.append(arguments[3]))
    async with nodes_of(stores).joined() as one:
        await nodes_of(stores).take(one.node_id, ids)
    assert await nodes_of(neighbour).free(other.node_id, ids) == set(ids)
    assert await execute(url, "SELECT count(*) FROM nodes") == 1
    async with asyncio.timeout(5):
        while not heard:
            await listener.execute("SELECT 1")
    assert all(id_ in heard[0] for id_ in ids)


async def test_a_lease_that_has_lapsed_in_the_database_is_never_renewed(
    stores: Stores, stack: AsyncExitStack, url: str
) -> None:
    one = await stack.enter_async_context(nodes_of(stores).joined())
    await vanish(url, one, ago_seconds=1)
    assert one.lease.is_held
    await asyncio.wait_for(one.is_over.wait(), 10)
    assert not one.lease.is_held


async def test_a_lease_is_renewed_over_another_connection_when_the_first_breaks(
    stores: Stores, stack: AsyncExitStack, url: str
) -> None:
    one = await stack.enter_async_context(nodes_of(stores).joined())
    expires = "SELECT expires_at FROM nodes"
    before = await execute(url, expires)
    await execute(
        url,
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    async with asyncio.timeout(10):
        while await execute(url, expires) == before:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.1)
    assert not one.is_over.is_set()


async def test_what_could_not_be_given_back_at_the_end_is_when_the_process_joins_again(
    own_server: PostgresServer,
) -> None:
    url = await asyncio.to_thread(own_server.create)
    async with database_of(url) as database:
        stores = Stores.over(database, HandClock())
        id_ = (await stores.subscribe()).id
        async with nodes_of(stores).joined() as one:
            await nodes_of(stores).take(one.node_id, [id_])
            await asyncio.to_thread(own_server.kill)
        await asyncio.to_thread(own_server.start)
        async with nodes_of(stores).joined() as again:
            assert again.node_id != one.node_id
            assert await nodes_of(stores).free(again.node_id, [id_]) == {id_}


async def test_who_joins_waits_for_the_database(own_server: PostgresServer) -> None:
    url = await asyncio.to_thread(own_server.create)
    async with database_of(url) as database:
        nodes = database.nodes
        assert nodes is not None
        await asyncio.to_thread(own_server.kill)

        async def be_a_node() -> None:
            async with nodes.joined() as member:
                assert member.lease.is_held

        joining = asyncio.create_task(be_a_node())
        done, _ = await asyncio.wait([joining], timeout=0.3)
        assert not done
        await asyncio.to_thread(own_server.start)
        await asyncio.wait_for(joining, 20)


async def test_who_joins_sweeps_up_nodes_and_lanes_that_are_long_gone(
    stores: Stores, neighbour: Stores, stack: AsyncExitStack, url: str
) -> None:
    id_ = (await stores.subscribe()).id
    one = await stack.enter_async_context(nodes_of(stores).joined())
    await nodes_of(stores).take(one.node_id, [id_])
    await nodes_of(stores).give_back(one.node_id, [id_], tell=False)
    await stores.subscriptions.delete(id_)
    await vanish(url, one, ago_seconds=90_000)
    await stack.enter_async_context(nodes_of(neighbour).joined())
    assert await execute(url, "SELECT count(*) FROM nodes") == 1
    assert await execute(url, "SELECT count(*) FROM lane_owners") == 0


# --- fencing ---------------------------------------------------------------------------------------------------------


async def test_what_was_begun_in_a_former_term_is_not_stored(stores: Stores, stack: AsyncExitStack) -> None:
    mine, others = await stores.subscribe(), await stores.subscribe()
    one = await stack.enter_async_context(nodes_of(stores).joined())
    await nodes_of(stores).take(one.node_id, [mine.id, others.id])
    await nodes_of(stores).take(one.node_id, [others.id])
    await stores.owe(await stores.publish(), mine, others)
    [kept], [refused] = await stores.due(mine), await stores.due(others)
    await stores.deliveries.settle([a_settlement(kept, term=1), a_settlement(refused, term=1)])
    assert await stores.status(kept) is DeliveryStatus.DELIVERED
    assert await stores.status(refused) is DeliveryStatus.PENDING
    assert await stores.desk.attempts(refused.id) == ()
    assert len(await stores.desk.attempts(kept.id)) == 1


async def test_the_attempt_of_the_present_term_is_the_one_that_is_kept(stores: Stores, stack: AsyncExitStack) -> None:
    subscription = await stores.subscribe()
    one = await stack.enter_async_context(nodes_of(stores).joined())
    await nodes_of(stores).take(one.node_id, [subscription.id])
    await nodes_of(stores).take(one.node_id, [subscription.id])
    [delivery] = await stores.owed(subscription)
    late, present = an_attempt(1, status_code=500), an_attempt(1, status_code=204)
    await stores.deliveries.settle([a_settlement(delivery, Retry(NOON), attempt=late, term=1)])
    await stores.deliveries.settle([a_settlement(delivery, attempt=present, term=2)])
    assert [attempt.status_code for attempt in await stores.desk.attempts(delivery.id)] == [204]


async def test_what_was_given_back_and_taken_by_nobody_is_stored_still(stores: Stores, stack: AsyncExitStack) -> None:
    subscription = await stores.subscribe()
    one = await stack.enter_async_context(nodes_of(stores).joined())
    await nodes_of(stores).take(one.node_id, [subscription.id])
    await nodes_of(stores).give_back(one.node_id, [subscription.id], tell=False)
    [delivery] = await stores.owed(subscription)
    await stores.deliveries.settle([a_settlement(delivery, term=1)])
    assert await stores.status(delivery) is DeliveryStatus.DELIVERED


async def test_of_a_former_term_nothing_is_said_to_be_stored(stores: Stores, stack: AsyncExitStack) -> None:
    subscription = await stores.subscribe()
    one = await stack.enter_async_context(nodes_of(stores).joined())
    await nodes_of(stores).take(one.node_id, [subscription.id])
    [delivery] = await stores.owed(subscription)
    told: list[Any] = []
    store = type(stores.deliveries)(stores.database, retry_schedule=(), settled=told.extend)
    await store.settle([a_settlement(delivery, term=7)])
    assert told == []


async def test_a_lane_cannot_be_taken_in_the_middle_of_a_settlement(
    stores: Stores, neighbour: Stores, stack: AsyncExitStack, url: str
) -> None:
    subscription = await stores.subscribe()
    one = await stack.enter_async_context(nodes_of(stores).joined())
    other = await stack.enter_async_context(nodes_of(neighbour).joined())
    await nodes_of(stores).take(one.node_id, [subscription.id])
    [delivery] = await stores.owed(subscription)
    async with session(url) as holder:
        holding = holder.transaction()
        await holding.start()
        await holder.execute("SELECT FROM deliveries WHERE id = $1 FOR UPDATE", delivery.id)
        settling = asyncio.create_task(stores.deliveries.settle([a_settlement(delivery, term=1)]))
        await is_waited_for(url)
        await vanish(url, one, ago_seconds=100)
        assert await nodes_of(neighbour).take(other.node_id, [subscription.id]) == {}
        await holding.rollback()
    await settling
    assert await stores.status(delivery) is DeliveryStatus.DELIVERED
    assert set(await nodes_of(neighbour).take(other.node_id, [subscription.id])) == {subscription.id}
