"""What a lane makes of live work and of replays together, in virtual time."""

from itertools import pairwise

import pytest

from tests.fakes.clock import START, quiet, until
from tests.fakes.deliveries import a_delivery, an_endpoint
from tests.fakes.world import World
from webhooks.deliveries import Delivery, DeliveryStatus
from webhooks.endpoints import Ordering, Status


@pytest.fixture
def world() -> World:
    return World()


def replayed(count: int, *, first: int = 1, **changes: object) -> list[Delivery]:
    """Deliveries of past events: their numbers and places are lower than those of live ones in these tests."""
    marks: dict[str, object] = {"replay_id": "rpl_1", "replayed": True, **changes}
    return [a_delivery(number, **marks) for number in range(first, first + count)]  # type: ignore[arg-type]  # the tests name real fields


def numbers(world: World) -> list[int]:
    return [delivery.cursor for _, delivery in world.receiver.sent]


async def test_all_live_work_goes_before_any_that_is_replayed_however_long_it_is(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=2), *replayed(30))
    world.owe(700, first=1_001)
    async with world.running():
        await until(lambda: world.count(DeliveryStatus.DELIVERED) == 730)
    assert numbers(world) == [*range(1_001, 1_701), *range(1, 31)]


@pytest.mark.parametrize("ordering", list(Ordering))
async def test_a_live_delivery_goes_next_though_a_replay_is_under_way(world: World, ordering: Ordering) -> None:
    world.store.add(an_endpoint(max_in_flight=1, ordering=ordering), *replayed(100))
    world.receiver.takes_seconds = 1
    async with world.running():
        await world.clock.advance(4.5)
        world.dispatcher.offer({"sub_1": world.owe(2, first=1_001)})
        await world.clock.advance(3)
        assert numbers(world) == [1, 2, 3, 4, 5, 1_001, 1_002, 6]
        await world.clock.advance(95)
    assert numbers(world)[7:] == [*range(6, 101)]


@pytest.mark.parametrize("ordering", list(Ordering))
async def test_one_that_nobody_offered_is_found_and_goes_before_the_rest_of_a_replay(
    world: World, ordering: Ordering
) -> None:
    world.store.add(an_endpoint(max_in_flight=1, ordering=ordering), *replayed(500))
    world.receiver.takes_seconds = 0.1
    async with world.running():
        await world.clock.advance(5)
        world.owe(1, first=1_001)
        world.dispatcher.wake(["sub_1"])
        await world.clock.advance(3)
    assert numbers(world).index(1_001) < 70


async def test_those_of_a_replay_are_tried_in_the_order_of_the_log(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=4), *reversed(replayed(200)))
    world.receiver.answer = lambda delivery: 500 if delivery.cursor % 7 == 0 else 204
    async with world.running():
        await world.clock.advance(60)
    firsts = [delivery.cursor for _, delivery in world.receiver.sent if delivery.attempt_count == 0]
    assert firsts == list(range(1, 201))


async def test_what_is_offered_of_a_replay_is_sent_without_a_read(world: World) -> None:
    world.store.add(an_endpoint())
    async with world.running():
        world.owe(1, first=1_001)
        world.dispatcher.wake(["sub_1"])
        await quiet()
        reads = world.store.reads
        made = replayed(10)
        world.store.add(*made)
        world.dispatcher.offer({"sub_1": made})
        await quiet()
        assert (world.count(DeliveryStatus.DELIVERED), world.store.reads) == (11, reads)


async def test_more_than_a_lane_holds_is_offered_and_all_of_it_sent_in_order(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=2))
    async with world.running():
        made = replayed(500)
        world.store.add(*made)
        world.dispatcher.offer({"sub_1": made})
        await until(lambda: world.count(DeliveryStatus.DELIVERED) == 500)
    assert numbers(world) == list(range(1, 501))


async def test_a_failing_replayed_delivery_blocks_the_replay_of_its_library_and_no_live_event(world: World) -> None:
    world.store.add(an_endpoint(ordering=Ordering.LIBRARY, retry_schedule=(60,)), *replayed(3, library_id="a"))
    world.receiver.answer = lambda delivery: 500 if delivery.cursor == 1 else 204
    async with world.running():
        await world.clock.advance(1)
        world.dispatcher.offer({"sub_1": world.owe(3, first=1_001, library_id="a")})
        await world.clock.advance(1)
        assert numbers(world) == [1, 1_001, 1_002, 1_003]
        await world.clock.advance(60)
    assert numbers(world)[4:] == [1, 2, 3]


async def test_a_failing_live_delivery_blocks_the_live_ones_of_its_library_and_no_replay(world: World) -> None:
    world.store.add(an_endpoint(ordering=Ordering.LIBRARY, retry_schedule=(60,)), *replayed(3, library_id="a"))
    world.owe(2, first=1_001, library_id="a")
    world.receiver.answer = lambda delivery: 500 if delivery.cursor == 1_001 else 204
    async with world.running():
        await world.clock.advance(1)
        assert numbers(world) == [1_001, 1, 2, 3]
        await world.clock.advance(60)
    assert numbers(world)[4:] == [1_001, 1_002]


@pytest.mark.parametrize("ordering", list(Ordering))
async def test_a_replay_keeps_its_own_rate_evenly_and_live_work_is_not_slowed(world: World, ordering: Ordering) -> None:
    world.store.add(an_endpoint(ordering=ordering), *replayed(100, replay_per_second=4.0))
    async with world.running():
        await world.clock.advance(9.9)
        world.dispatcher.offer({"sub_1": world.owe(50, first=1_001)})
        await world.clock.advance(0.09)
        assert len(world.receiver.sent) == 40 + 50
        await world.clock.advance(20)
    moments = [moment for moment, delivery in world.receiver.sent if delivery.replayed]
    assert {(later - earlier).total_seconds() for earlier, later in pairwise(moments)} == {0.25}
    assert len(moments) == 100


async def test_only_first_attempts_are_held_to_a_replays_rate(world: World) -> None:
    world.store.add(an_endpoint(retry_schedule=(5, 5)), *replayed(20, replay_per_second=2.0))
    world.receiver.answer = lambda delivery: 500 if delivery.cursor == 1 else 204
    async with world.running():
        await world.clock.advance(20)
    assert numbers(world).count(1) == 3
    firsts = [(moment - START).total_seconds() for moment, one in world.receiver.sent if one.attempt_count == 0]
    assert firsts == [number * 0.5 for number in range(20)]


async def test_the_endpoints_rate_holds_for_live_work_and_replays_together(world: World) -> None:
    world.store.add(an_endpoint(max_per_second=10), *replayed(40, replay_per_second=8.0))
    world.owe(20, first=1_001)
    async with world.running():
        await world.clock.advance(30)
    assert numbers(world)[:20] == list(range(1_001, 1_021))
    seconds = world.receiver.seconds()
    assert all(later - earlier >= 0.08 for earlier, later in pairwise(seconds))
    assert len(seconds) == 60


async def test_a_very_slow_replay_keeps_its_rate_though_its_lane_has_nothing_to_do_in_between(world: World) -> None:
    world.store.add(an_endpoint(), *replayed(4, replay_per_second=0.01))
    async with world.running():
        await world.clock.advance(350)
    assert world.receiver.seconds() == [0, 100, 200, 300]


async def test_a_replayed_delivery_that_a_person_forces_goes_now(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=1), *replayed(3, replay_per_second=0.001))
    world.owe(10, first=1_001)
    world.receiver.takes_seconds = 1
    async with world.running():
        await world.clock.advance(4.5)
        [wanted] = replayed(1, first=3, replay_per_second=0.001, forced=True)
        world.store.add(wanted)
        world.dispatcher.changed("sub_1")
        await world.clock.advance(1)
        assert numbers(world) == [1_001, 1_002, 1_003, 1_004, 1_005, 3]


async def test_what_was_cancelled_of_a_replay_is_not_sent(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=1), *replayed(20))
    world.receiver.takes_seconds = 1
    async with world.running():
        await world.clock.advance(2.5)
        for row in world.store.rows.values():
            if row.status is DeliveryStatus.PENDING:
                row.status = DeliveryStatus.CANCELLED
        world.dispatcher.changed("sub_1")
        await world.clock.advance(30)
    assert numbers(world) == [1, 2, 3]


async def test_a_paused_endpoint_is_sent_nothing_of_a_replay_until_it_is_resumed(world: World) -> None:
    world.store.add(an_endpoint(status=Status.PAUSED), *replayed(5))
    async with world.running():
        await world.clock.advance(5)
        assert world.receiver.sent == []
        world.store.add(an_endpoint())
        world.dispatcher.changed("sub_1")
        await quiet()
    assert numbers(world) == [1, 2, 3, 4, 5]


async def test_the_order_can_change_while_a_replay_is_under_way(world: World) -> None:
    world.store.add(an_endpoint(max_in_flight=2), *replayed(60))
    world.receiver.takes_seconds = 0.1
    async with world.running():
        await world.clock.advance(1)
        world.store.add(an_endpoint(max_in_flight=2, ordering=Ordering.LIBRARY))
        world.dispatcher.changed("sub_1")
        await world.clock.advance(10)
    assert sorted(numbers(world)) == list(range(1, 61))
    assert world.count(DeliveryStatus.DELIVERED) == 60
