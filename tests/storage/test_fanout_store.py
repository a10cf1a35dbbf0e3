"""From events to deliveries: the rows and the cursor together."""

from datetime import timedelta

from gateway.events import Cursor
from gateway.ports import FanoutPlace
from tests.builders import NOON, a_draft
from tests.storage.arrange import Stores
from webhooks.deliveries import DeliveryStatus

START = FanoutPlace(cursor=Cursor(0))


async def test_a_new_log_is_fanned_out_up_to_its_beginning(stores: Stores) -> None:
    assert await stores.fanout.place() == START


async def test_deliveries_and_cursor_move_together(stores: Stores) -> None:
    one, two = await stores.subscribe(), await stores.subscribe()
    first, second = await stores.publish(a_draft(id="a", library_id="books"), a_draft(id="b", type="custom"))
    assert (
        await stores.fanout.advance(START, second.cursor, [(first, [one.id, two.id]), (second, [one.id])]) is not None
    )
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
    assert await stores.fanout.advance(START, event.cursor, []) is not None
    assert await stores.fanout.advance(START, event.cursor, [(event, [subscription.id])]) is None
    assert await stores.due(subscription) == ()
    assert await stores.fanout.place() == FanoutPlace(cursor=event.cursor)


async def test_ids_rise_in_the_order_in_which_deliveries_are_made(stores: Stores) -> None:
    subscription = await stores.subscribe()
    events = await stores.publish(*(a_draft() for _ in range(300)))
    await stores.owe(events, subscription)
    by_id = sorted(await stores.due(subscription), key=lambda delivery: delivery.id)
    assert [delivery.cursor for delivery in by_id] == [event.cursor for event in events]
    assert by_id[0].id.startswith("dlv_")


async def test_what_is_begun_is_remembered_until_the_rest_is_made(stores: Stores) -> None:
    one, two, three = await stores.subscribe(), await stores.subscribe(), await stores.subscribe()
    [event] = await stores.publish()
    start = await stores.fanout.place()
    begun = await stores.fanout.begin(start, event, [one.id])
    assert begun is not None
    assert list(begun) == [one.id]
    assert await stores.fanout.place() == FanoutPlace(cursor=start.cursor, made=frozenset({one.id}))
    assert [len(await stores.due(each)) for each in (one, two, three)] == [1, 0, 0]
    assert await stores.fanout.begin(await stores.fanout.place(), event, [two.id]) is not None
    place = await stores.fanout.place()
    assert place.made == {one.id, two.id}
    assert await stores.fanout.advance(place, event.cursor, [(event, [three.id])]) is not None
    assert await stores.fanout.place() == FanoutPlace(cursor=event.cursor)
    assert [len(await stores.due(each)) for each in (one, two, three)] == [1, 1, 1]


async def test_who_does_not_know_what_another_process_has_begun_makes_nothing(stores: Stores) -> None:
    one, two = await stores.subscribe(), await stores.subscribe()
    [event] = await stores.publish()
    start = await stores.fanout.place()
    assert await stores.fanout.begin(start, event, [one.id]) is not None
    assert await stores.fanout.begin(start, event, [two.id]) is None
    assert await stores.fanout.advance(start, event.cursor, [(event, [one.id, two.id])]) is None
    assert [len(await stores.due(each)) for each in (one, two)] == [1, 0]
