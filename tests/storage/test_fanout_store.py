"""From events to deliveries: the rows and the cursor together."""

from dataclasses import replace
from datetime import timedelta

from gateway.events import Cursor, LoggedEvent
from gateway.ports.fanout import FanoutPlace
from tests.builders import NOON, a_draft
from tests.storage.arrange import Stores
from webhooks.deliveries import DeliveryStatus

START = FanoutPlace(cursor=Cursor(0))


def at(event: LoggedEvent) -> FanoutPlace:
    return FanoutPlace(cursor=event.cursor)


async def test_a_new_log_is_fanned_out_up_to_its_beginning(stores: Stores) -> None:
    assert await stores.fanout.place() == START


async def test_deliveries_and_cursor_move_together(stores: Stores) -> None:
    one, two = await stores.subscribe(), await stores.subscribe()
    first, second = await stores.publish(a_draft(id="a", library_id="books"), a_draft(id="b", type="custom"))
    assert await stores.fanout.advance(START, at(second), [(first, [one.id, two.id]), (second, [one.id])]) is not None
    assert await stores.fanout.place() == FanoutPlace(cursor=second.cursor)
    assert [delivery.event_id for delivery in await stores.due(one)] == ["a", "b"]
    [delivery] = await stores.due(two)
    assert (delivery.event_id, delivery.cursor, delivery.endpoint_id) == ("a", first.cursor, two.id)
    assert delivery.body == first.body
    assert (delivery.created_at, delivery.due_at, delivery.idle_before) == (NOON, NOON, timedelta(0))
    record = await stores.desk.get(delivery.id)
    assert record is not None
    assert (record.status, record.library_id, record.type) == (DeliveryStatus.PENDING, "books", "document.added")


async def test_a_cursor_that_another_process_moved_leaves_nothing_behind(stores: Stores) -> None:
    subscription = await stores.subscribe()
    [event] = await stores.publish()
    assert await stores.fanout.advance(START, at(event), []) is not None
    assert await stores.fanout.advance(START, at(event), [(event, [subscription.id])]) is None
    assert await stores.due(subscription) == ()
    assert await stores.fanout.place() == FanoutPlace(cursor=event.cursor)


async def test_ids_rise_in_the_order_in_which_deliveries_are_made(stores: Stores) -> None:
    subscription = await stores.subscribe()
    events = await stores.publish(*(a_draft() for _ in range(300)))
    await stores.owe(events, subscription)
    by_id = sorted(await stores.due(subscription), key=lambda delivery: delivery.id)
    assert [delivery.cursor for delivery in by_id] == [event.cursor for event in events]
    assert by_id[0].id.startswith("dlv_")


async def test_who_is_behind_is_remembered_until_all_is_made(stores: Stores) -> None:
    one, two, three = await stores.subscribe(), await stores.subscribe(), await stores.subscribe()
    first, second = await stores.publish(a_draft(), a_draft())
    start = await stores.fanout.place()
    some = FanoutPlace(cursor=start.cursor, ahead=first.cursor, behind={three.id: start.cursor})
    assert await stores.fanout.advance(start, some, [(first, [one.id, two.id])]) is not None
    assert await stores.fanout.place() == some
    more = replace(some, ahead=second.cursor, behind={**some.behind, two.id: first.cursor})
    assert await stores.fanout.advance(some, more, [(second, [one.id])]) is not None
    assert await stores.fanout.place() == more
    assert [len(await stores.due(each)) for each in (one, two, three)] == [2, 1, 0]
    rest = [(first, [three.id]), (second, [two.id, three.id])]
    assert await stores.fanout.advance(more, at(second), rest) is not None
    assert await stores.fanout.place() == at(second)
    assert [len(await stores.due(each)) for each in (one, two, three)] == [2, 2, 2]


async def test_who_does_not_know_how_far_another_process_is_ahead_makes_nothing(stores: Stores) -> None:
    one, two = await stores.subscribe(), await stores.subscribe()
    [event] = await stores.publish()
    start = await stores.fanout.place()
    some = FanoutPlace(cursor=start.cursor, ahead=event.cursor, behind={two.id: start.cursor})
    assert await stores.fanout.advance(start, some, [(event, [one.id])]) is not None
    assert await stores.fanout.advance(start, some, [(event, [one.id])]) is None
    assert await stores.fanout.advance(start, at(event), [(event, [one.id, two.id])]) is None
    assert [len(await stores.due(each)) for each in (one, two)] == [1, 0]
