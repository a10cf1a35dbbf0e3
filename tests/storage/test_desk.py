"""Deliveries as people see and steer them."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest

from gateway.errors import Conflict
from gateway.events import Cursor
from gateway.ports.desk import DeliveryQuery, RedeliverQuery
from gateway.subscriptions import Subscription
from tests.builders import NOON, a_draft
from tests.storage.arrange import Stores, drop_events
from webhooks.deliveries import Delivery, DeliveryStatus
from webhooks.verdicts import Reason

BOOKS = frozenset({"books"})
LATER = NOON + timedelta(minutes=5)


async def listed(stores: Stores, *, libraries: frozenset[str] | None = None, **question: Any) -> list[str]:
    """The ids of the first page."""
    page = await stores.desk.list(DeliveryQuery(libraries=libraries, **question))
    return [record.id for record in page.rows]


def newest_first(deliveries: Iterable[Delivery]) -> list[str]:
    return sorted((delivery.id for delivery in deliveries), reverse=True)


# --- reading ---------------------------------------------------------------------------------------------------------


async def test_a_delivery_is_seen_as_it_is(stores: Stores) -> None:
    subscription = await stores.subscribe(libraries={"books"})
    [delivery] = await stores.owed(subscription)
    await stores.fail(delivery, due_at=LATER)
    record = await stores.desk.get(delivery.id)
    assert record is not None
    assert (record.event_id, record.subscription_id, record.libraries) == (delivery.event_id, subscription.id, BOOKS)
    assert (record.status, record.attempt_count, record.due_at) == (DeliveryStatus.PENDING, 1, LATER)
    assert (record.created_at, record.settled_at, record.reason, record.replay_id) == (NOON, None, None, None)
    [attempt] = await stores.desk.attempts(delivery.id)
    assert (attempt.number, attempt.status_code) == (1, 503)


async def test_a_settled_delivery_is_due_no_more(stores: Stores) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    await stores.settle(delivery, at=LATER)
    record = await stores.desk.get(delivery.id)
    assert record is not None
    assert (record.due_at, record.settled_at) == (None, LATER)


async def test_an_unknown_delivery_is_none(stores: Stores) -> None:
    assert await stores.desk.get("dlv_9") is None
    assert await stores.desk.attempts("dlv_9") == ()
    assert await stores.desk.retry("dlv_9", now=NOON) is None
    assert await stores.desk.cancel("dlv_9", now=NOON) is None
    assert not await stores.desk.forget("dlv_9")


# --- listing ---------------------------------------------------------------------------------------------------------


async def test_deliveries_are_listed_newest_first_page_by_page(stores: Stores) -> None:
    subscription = await stores.subscribe()
    deliveries = await stores.owed(subscription, events=5)
    pages, resume = [], None
    while True:
        page = await stores.desk.list(DeliveryQuery(libraries=None, limit=2, resume=resume))
        pages.append([record.id for record in page.rows])
        if (resume := page.more) is None:
            break
    ids = newest_first(deliveries)
    assert pages == [ids[:2], ids[2:4], ids[4:]]


async def test_a_full_last_page_of_deliveries_is_the_last(stores: Stores) -> None:
    await stores.owed(await stores.subscribe(), events=2)
    assert (await stores.desk.list(DeliveryQuery(libraries=None, limit=2))).more is None


async def test_a_listing_knows_every_part_of_its_question(stores: Stores) -> None:
    one, two = await stores.subscribe(), await stores.subscribe()
    events = await stores.publish(
        a_draft(id="a", library_id="books"), a_draft(id="b", library_id="films", type="custom"), a_draft(id="c")
    )
    await stores.owe(events, one, two)
    a, b, c = await stores.due(one)
    d, e, f = await stores.due(two)
    await stores.kill(a, e)
    await stores.settle(b)
    await stores.desk.cancel(c.id, now=NOON)
    assert await listed(stores) == newest_first([a, b, c, d, e, f])
    assert await listed(stores, subscription_id=one.id) == newest_first([a, b, c])
    assert await listed(stores, event_id="b") == newest_first([b, e])
    assert await listed(stores, event_id="b", subscription_id=two.id, status=DeliveryStatus.DEAD) == [e.id]
    assert await listed(stores, event_id="b", status=DeliveryStatus.PENDING) == []
    assert await listed(stores, status=DeliveryStatus.DEAD) == newest_first([a, e])
    assert await listed(stores, status=DeliveryStatus.DEAD, subscription_id=one.id) == [a.id]
    assert await listed(stores, status=DeliveryStatus.PENDING) == newest_first([d, f])
    assert await listed(stores, status=DeliveryStatus.CANCELLED, subscription_id=one.id) == [c.id]
    assert await listed(stores, status=DeliveryStatus.DELIVERED) == [b.id]
    assert await listed(stores, library_id="films") == newest_first([b, e])
    assert await listed(stores, type="document.added") == newest_first([a, c, d, f])
    assert await listed(stores, type="custom", status=DeliveryStatus.DELIVERED) == [b.id]
    assert await listed(stores, subscription_id="sub_9") == []


async def test_a_listing_lies_between_since_and_until_of_acceptance(stores: Stores) -> None:
    subscription = await stores.subscribe()
    for _ in range(4):  # at 0, 10, 20 and 30 seconds
        await stores.owed(subscription)
        stores.clock.advance(seconds=10)
    ids = newest_first(await stores.due(subscription))
    ten, thirty = NOON + timedelta(seconds=10), NOON + timedelta(seconds=30)
    assert await listed(stores, since=ten) == ids[:3]
    assert await listed(stores, until=thirty) == ids[1:]
    assert await listed(stores, since=ten, until=thirty) == ids[1:3]
    assert await listed(stores, since=thirty + timedelta(hours=1)) == []
    assert await listed(stores, until=NOON) == []


async def test_an_old_event_that_was_sent_again_does_not_end_a_listing_early(stores: Stores) -> None:
    subscription = await stores.subscribe()
    old = await stores.publish()
    stores.clock.advance(seconds=10)
    new = await stores.owed(subscription, events=2)
    await stores.owe(old, subscription)
    [again] = [delivery for delivery in await stores.due(subscription) if delivery not in new]
    await stores.kill(again)
    await stores.desk.redeliver(RedeliverQuery(libraries=None, ids=(again.id,)), now=stores.clock())
    assert await listed(stores) == [again.id, *newest_first(new)]
    assert await listed(stores, since=NOON + timedelta(seconds=10)) == newest_first(new)


async def test_a_listing_since_before_what_retention_dropped_goes_all_the_way_back(stores: Stores) -> None:
    subscription = await stores.subscribe()
    deliveries = await stores.owed(subscription, events=3)
    await stores.deliveries.settle([])
    await drop_events(stores.database, Cursor(deliveries[1].cursor))
    assert await listed(stores, since=NOON - timedelta(days=1)) == newest_first(deliveries)


async def test_deliveries_are_listed_to_those_who_may_see_their_subscription(stores: Stores) -> None:
    everybodys = await stores.subscribe()
    books = await stores.subscribe(libraries={"books"})
    films = await stores.subscribe(libraries={"films"})
    both = await stores.subscribe(libraries={"books", "films"})
    await stores.owe(await stores.publish(), everybodys, books, films, both)
    seen = {
        id_: {
            next(s for s in (everybodys, books, films, both) if s.id == record.subscription_id).libraries
            for record in (await stores.desk.list(DeliveryQuery(libraries=held))).rows
        }
        for id_, held in {"all": None, "books": BOOKS, "both": BOOKS | {"films"}, "none": frozenset[str]()}.items()
    }
    assert seen == {
        "all": {None, BOOKS, frozenset({"films"}), BOOKS | {"films"}},
        "books": {BOOKS},
        "both": {BOOKS, frozenset({"films"}), BOOKS | {"films"}},
        "none": set(),
    }


async def test_deliveries_of_a_deleted_subscription_stay_visible_to_those_who_saw_it(stores: Stores) -> None:
    mine, everybodys = await stores.subscribe(libraries={"books"}), await stores.subscribe()
    events = await stores.publish()
    await stores.owe(events, mine, everybodys)
    [delivery], [other] = await stores.due(mine), await stores.due(everybodys)
    await stores.subscriptions.delete(mine.id)
    await stores.subscriptions.delete(everybodys.id)
    assert await listed(stores) == newest_first([delivery, other])
    assert await listed(stores, libraries=BOOKS) == [delivery.id]
    assert await listed(stores, libraries=frozenset({"films"})) == []
    record = await stores.desk.get(delivery.id)
    assert record is not None
    assert record.libraries == BOOKS


async def test_no_page_of_deliveries_examines_more_than_its_limit(stores: Stores) -> None:
    theirs, mine = await stores.subscribe(), await stores.subscribe(libraries={"books"})
    [wanted] = await stores.owed(mine)
    events = await stores.publish(*(a_draft() for _ in range(1000)))
    await stores.owe(events, *[theirs] * 11)
    first = await stores.desk.list(DeliveryQuery(libraries=BOOKS))
    assert first.rows == ()
    assert first.more is not None
    second = await stores.desk.list(DeliveryQuery(libraries=BOOKS, resume=first.more))
    assert [record.id for record in second.rows] == [wanted.id]
    assert second.more is None


# --- retry, cancel, forget -------------------------------------------------------------------------------------------


async def test_a_retried_delivery_is_forced_and_goes_first(stores: Stores) -> None:
    subscription = await stores.subscribe()
    first, second = await stores.owed(subscription, events=2)
    await stores.fail(second, due_at=LATER)
    record = await stores.desk.retry(second.id, now=NOON)
    assert record is not None
    assert (record.status, record.due_at) == (DeliveryStatus.PENDING, NOON)
    again, waiting = await stores.due(subscription)
    assert (again.id, again.forced, again.attempt_count, again.schedule_start) == (second.id, True, 1, 0)
    assert (waiting.id, waiting.forced) == (first.id, False)
    await stores.fail(again, due_at=LATER)
    assert [delivery.forced for delivery in await stores.due(subscription, now=LATER)] == [False, False]


@pytest.mark.parametrize("end", ["dead", "cancelled"])
async def test_a_settled_delivery_that_is_retried_starts_over(stores: Stores, end: str) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    await stores.fail(delivery, due_at=NOON)
    [again] = await stores.due(subscription)
    await (stores.kill(again) if end == "dead" else stores.desk.cancel(again.id, now=NOON))
    attempts = len(await stores.desk.attempts(delivery.id))
    record = await stores.desk.retry(delivery.id, now=LATER)
    assert record is not None
    assert (record.status, record.reason, record.settled_at) == (DeliveryStatus.PENDING, None, None)
    [third] = await stores.due(subscription, now=LATER)
    assert (third.attempt_count, third.schedule_start, third.first_attempt_at) == (attempts, attempts, None)
    assert third.forced


async def test_a_delivered_one_cannot_be_retried(stores: Stores) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    await stores.settle(delivery)
    with pytest.raises(Conflict):
        await stores.desk.retry(delivery.id, now=NOON)


async def test_nothing_is_retried_whose_subscription_or_event_is_gone(stores: Stores) -> None:
    subscription, other = await stores.subscribe(), await stores.subscribe()
    await stores.owe(await stores.publish(a_draft(id="a")), subscription, other)
    [delivery], [kept] = await stores.due(subscription), await stores.due(other)
    await stores.kill(delivery, kept)
    await stores.subscriptions.delete(subscription.id)
    with pytest.raises(Conflict, match="subscription"):
        await stores.desk.retry(delivery.id, now=NOON)
    await drop_events(stores.database, (await stores.log.position()).head)
    await stores.publish(a_draft(id="a"))  # another event under the same id is not its event
    with pytest.raises(Conflict, match="event"):
        await stores.desk.retry(kept.id, now=NOON)
    assert await stores.status(kept) is DeliveryStatus.DEAD


async def test_a_cancelled_delivery_is_never_sent(stores: Stores) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    await stores.desk.retry(delivery.id, now=NOON)
    record = await stores.desk.cancel(delivery.id, now=LATER)
    assert record is not None
    assert (record.status, record.reason, record.settled_at) == (DeliveryStatus.CANCELLED, Reason.CANCELLED, LATER)
    assert await stores.due(subscription, now=LATER) == ()
    with pytest.raises(Conflict):
        await stores.desk.cancel(delivery.id, now=NOON)


async def test_only_dead_letters_can_be_forgotten_and_their_attempts_go_with_them(stores: Stores) -> None:
    subscription = await stores.subscribe()
    dead, pending = await stores.owed(subscription, events=2)
    await stores.kill(dead)
    assert not await stores.desk.forget(pending.id)
    assert await stores.desk.forget(dead.id)
    assert not await stores.desk.forget(dead.id)
    assert await stores.desk.get(dead.id) is None
    assert await stores.desk.attempts(dead.id) == ()


# --- redelivery ------------------------------------------------------------------------------------------------------


async def dead_letters(stores: Stores, subscription: Subscription, count: int) -> tuple[Delivery, ...]:
    deliveries = await stores.owed(subscription, events=count)
    await stores.kill(*deliveries)
    return deliveries


def of(subscription: Subscription, **question: Any) -> RedeliverQuery:
    return RedeliverQuery(**{"libraries": None, "subscription_id": subscription.id, **question})


async def test_dead_letters_are_sent_again_on_a_fresh_schedule(stores: Stores) -> None:
    subscription = await stores.subscribe(libraries={"books"})
    await dead_letters(stores, subscription, 3)
    assert await stores.desk.count_redeliverable(of(subscription)) == 3
    replay = await stores.desk.redeliver(of(subscription), now=LATER)
    assert (replay.kind, replay.subscription_id, replay.matched) == ("redeliver", subscription.id, 3)
    assert (replay.libraries, replay.created_at, replay.by_status) == (BOOKS, LATER, {"pending": 3})
    again = await stores.due(subscription, now=LATER)
    assert {(one.attempt_count, one.schedule_start, one.first_attempt_at, one.replay_id) for one in again} == {
        (1, 1, None, replay.id)
    }
    await stores.settle(again[0])
    later = await stores.desk.replay(replay.id)
    assert later is not None
    assert later.by_status == {"pending": 2, "delivered": 1}
    assert await stores.desk.count_redeliverable(of(subscription)) == 0


async def test_more_dead_letters_than_one_transaction_takes_are_all_sent_again(stores: Stores) -> None:
    subscription = await stores.subscribe()
    events = await stores.publish(*(a_draft() for _ in range(1100)))
    await stores.owe(events, subscription, subscription)
    await stores.kill(*await stores.due(subscription, limit=5000))
    assert await stores.desk.count_redeliverable(of(subscription)) == 2200
    replay = await stores.desk.redeliver(of(subscription), now=NOON)
    assert (replay.matched, replay.by_status) == (2200, {"pending": 2200})
    assert await stores.desk.stop_replay(replay.id) == frozenset({subscription.id})
    stopped = await stores.desk.replay(replay.id)
    assert stopped is not None
    assert stopped.by_status == {"cancelled": 2200}


async def test_dead_letters_are_chosen_by_time_and_type(stores: Stores) -> None:
    subscription = await stores.subscribe()
    moments: list[datetime] = []
    for type_ in ("document.added", "document.page.added", "custom"):
        moments.append(stores.clock())
        await stores.owe(await stores.publish(a_draft(type=type_)), subscription)
        stores.clock.advance(seconds=10)
    await stores.kill(*await stores.due(subscription))

    async def count(**question: Any) -> int:
        return await stores.desk.count_redeliverable(of(subscription, **question))

    assert await count(types=frozenset({"document.*"})) == 2
    assert await count(types=frozenset({"custom", "document.page.*"})) == 2
    assert await count(types=frozenset({"*"})) == 3
    assert await count(since=moments[1]) == 2
    assert await count(until=moments[1]) == 1
    assert await count(since=moments[1], until=moments[2], types=frozenset({"custom"})) == 0


async def test_dead_letters_are_chosen_by_id_from_those_the_caller_may_see(stores: Stores) -> None:
    mine, theirs = await stores.subscribe(libraries={"books"}), await stores.subscribe()
    [one, two], [other] = await dead_letters(stores, mine, 2), await dead_letters(stores, theirs, 1)
    [pending] = await stores.owed(mine)
    ids = (one.id, other.id, pending.id, "dlv_9", one.id)
    question = RedeliverQuery(libraries=BOOKS, ids=ids)
    assert await stores.desk.count_redeliverable(question) == 1
    replay = await stores.desk.redeliver(question, now=NOON)
    assert (replay.matched, replay.libraries, replay.subscription_id) == (1, BOOKS, None)
    assert await stores.status(one) is DeliveryStatus.PENDING
    assert await stores.status(two) is DeliveryStatus.DEAD
    assert await stores.status(other) is DeliveryStatus.DEAD


async def test_nobody_redelivers_for_a_subscription_they_may_not_see(stores: Stores) -> None:
    subscription = await stores.subscribe(libraries={"films"})
    await dead_letters(stores, subscription, 1)
    question = of(subscription, libraries=BOOKS)
    assert await stores.desk.count_redeliverable(question) == 0
    assert (await stores.desk.redeliver(question, now=NOON)).matched == 0


async def test_nothing_is_sent_again_whose_event_or_subscription_is_gone(stores: Stores) -> None:
    subscription, deleted = await stores.subscribe(), await stores.subscribe()
    first, _ = await dead_letters(stores, subscription, 2)
    await dead_letters(stores, deleted, 1)
    await stores.subscriptions.delete(deleted.id)
    assert await stores.desk.count_redeliverable(of(deleted)) == 0
    await drop_events(stores.database, Cursor(first.cursor))
    assert (await stores.desk.redeliver(of(subscription), now=NOON)).matched == 1


async def test_stopping_a_replay_cancels_what_is_still_pending_of_it(stores: Stores) -> None:
    subscription = await stores.subscribe()
    await dead_letters(stores, subscription, 2)
    replay = await stores.desk.redeliver(of(subscription), now=NOON)
    sent, _ = await stores.due(subscription)
    await stores.settle(sent)
    assert await stores.desk.stop_replay(replay.id) == frozenset({subscription.id})
    assert await stores.desk.stop_replay(replay.id) == frozenset()
    stopped = await stores.desk.replay(replay.id)
    assert stopped is not None
    assert stopped.by_status == {"delivered": 1, "cancelled": 1}
    assert await stores.desk.stop_replay("rpl_9") is None
    assert await stores.desk.replay("rpl_9") is None
