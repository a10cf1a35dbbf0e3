"""Two lines as one: what may be taken next."""

from datetime import timedelta

import pytest

from tests.fakes.clock import START
from tests.fakes.deliveries import MemoryDeliveryStore, a_delivery
from webhooks.deliveries import Delivery
from webhooks.line import FreeLine, LibraryLine
from webhooks.live_first import LiveFirst

SECOND = timedelta(seconds=1)
KINDS = pytest.mark.parametrize("kind", [FreeLine, LibraryLine])


def replayed(number: int, **changes: object) -> Delivery:
    marks: dict[str, object] = {"replay_id": "rpl_1", "replayed": True, "replay_per_second": 1.0, **changes}
    return a_delivery(number, **marks)  # type: ignore[arg-type]  # the tests name real fields


async def a_line(kind: type[FreeLine] | type[LibraryLine], *deliveries: Delivery) -> LiveFirst:
    """One that has read *deliveries*."""
    store = MemoryDeliveryStore()
    store.add(*deliveries)
    line = LiveFirst(kind, store, "sub_1", now=lambda: START)
    await line.refill(START, room=10)
    return line


@KINDS
async def test_while_the_store_may_hold_live_work_nothing_replayed_may_go(
    kind: type[FreeLine] | type[LibraryLine],
) -> None:
    line = await a_line(kind, replayed(1))
    assert (line.waiting, line.has_next(only_forced=False)) == (1, True)
    line.more = True
    assert (line.waiting, line.has_next(only_forced=False)) == (0, False)
    with pytest.raises(LookupError):
        line.take(only_forced=False)


@KINDS
async def test_one_that_is_tried_again_uses_up_no_turn_of_its_replay(
    kind: type[FreeLine] | type[LibraryLine],
) -> None:
    again = replayed(1, attempt_count=1, first_attempt_at=START - SECOND, due_at=START - SECOND, library_id="a")
    line = await a_line(kind, again, replayed(2, library_id="b"), replayed(3, library_id="c"))
    assert line.take(only_forced=False).cursor == 1
    assert line.take(only_forced=False).cursor == 2
    assert not line.has_next(only_forced=False)
    assert line.paced_until(START) == START + SECOND


@KINDS
async def test_one_that_a_person_forces_uses_up_no_turn_of_its_replay(
    kind: type[FreeLine] | type[LibraryLine],
) -> None:
    line = await a_line(kind, replayed(1, forced=True, library_id="a"), replayed(2, library_id="b"))
    assert line.take(only_forced=True).cursor == 1
    assert line.paced_until(START) is None
    assert line.peek(only_forced=False).cursor == 2


async def test_replayed_ones_that_wait_take_up_no_room_of_live_ones() -> None:
    line = await a_line(FreeLine, *(replayed(number) for number in range(1, 6)))
    line.offer([a_delivery(1_001)], room=0)
    assert not line.more
    assert line.take(only_forced=False).cursor == 1_001
