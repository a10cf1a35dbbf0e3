"""From events to deliveries: the rows and the cursor together."""

from datetime import timedelta

from gateway.events import Cursor
from tests.builders import NOON, a_draft
from tests.storage.arrange import Stores
from webhooks.deliveries import DeliveryStatus


async def test_a_new_log_is_fanned_out_up_to_its_beginning(stores: Stores) -> None:
    assert await stores.fanout.cursor() == 0


async def test_deliveries_and_cursor_move_together(stores: Stores) -> None:
    one, two = await stores.subscribe(), await stores.subscribe()
    first, second = await stores.publish(a_draft(id="a", library_id="books"), a_draft(id="b", type="custom"))
    assert (
        await stores.fanout.advance(Cursor(0), second.cursor, [(first, [one.id, two.id]), (second, [one.id])])
        is not None
    )
    assert await stores.fanout.cursor() == second.cursor
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
    assert await stores.fanout.advance(Cursor(0), event.cursor, []) is not None
    assert await stores.fanout.advance(Cursor(0), event.cursor, [(event, [subscription.id])]) is None
    assert await stores.due(subscription) == ()
    assert await stores.fanout.cursor() == event.cursor


async def test_ids_rise_in_the_order_in_which_deliveries_are_made(stores: Stores) -> None:
    subscription = await stores.subscribe()
    events = await stores.publish(*(a_draft() for _ in range(300)))
    await stores.owe(events, subscription)
    by_id = sorted(await stores.due(subscription), key=lambda delivery: delivery.id)
    assert [delivery.cursor for delivery in by_id] == [event.cursor for event in events]
    assert by_id[0].id.startswith("dlv_")
