"""What became of one event for each subscription, and what is known of the filter it met."""

from dataclasses import replace

from gateway.events import Cursor, LoggedEvent
from gateway.filters import Filter
from gateway.listing import Listing
from gateway.ports.desk import MOST_OUTCOMES, Outcome
from gateway.subscriptions import Subscription
from tests.builders import a_draft
from tests.storage.arrange import Stores, drop_events

UPDATED = "gateway.subscription.updated"


async def outcomes(stores: Stores, event: LoggedEvent, *, limit: int = 50, **fields: object) -> Listing[Outcome, str]:
    given = {"libraries": None, "before": None, **fields}
    return await stores.desk.outcomes(event, limit=limit, **given)  # type: ignore[arg-type]  # the tests name real fields


async def judged(stores: Stores, event: LoggedEvent) -> tuple[frozenset[str] | None, bool]:
    """By which types the one subscription was judged, and whether that is known."""
    [outcome] = (await outcomes(stores, event)).rows
    return outcome.interest.filter.types, outcome.is_known


async def wants(stores: Stores, subscription: Subscription, *types: str) -> None:
    filter_ = Filter(types=frozenset(types))
    await stores.subscriptions.change(subscription.id, lambda one: replace(one, filter=filter_), UPDATED)


async def fan_out(stores: Stores) -> None:
    await stores.owe([])


async def test_each_subscription_has_its_deliveries_newest_first(stores: Stores) -> None:
    one, two = await stores.subscribe(), await stores.subscribe()
    event, other = await stores.publish(a_draft(), a_draft())
    await stores.owe([event, other], one)
    [live, _] = await stores.due(one)
    [again] = await stores.replay(one.id, live)
    page = await outcomes(stores, event)
    assert [outcome.subscription_id for outcome in page.rows] == [two.id, one.id]
    assert [[record.id for record in outcome.deliveries] for outcome in page.rows] == [[], [again.id, live.id]]
    assert page.rows[0].fanned_out == other.cursor
    assert page.rows[0].interest.since == two.created_cursor
    assert page.more is None


async def test_of_very_many_deliveries_of_one_event_the_newest_are_seen(stores: Stores) -> None:
    one, two = await stores.subscribe(), await stores.subscribe()
    [event] = await stores.publish()
    await stores.owe([event] * 30, one, two)
    page = await outcomes(stores, event)
    newest = sorted((delivery.id for delivery in await stores.due(one)), reverse=True)[:MOST_OUTCOMES]
    assert [len(outcome.deliveries) for outcome in page.rows] == [MOST_OUTCOMES, MOST_OUTCOMES]
    assert [record.id for record in page.rows[1].deliveries] == newest


async def test_another_event_under_the_same_id_is_another(stores: Stores) -> None:
    subscription = await stores.subscribe()
    events = await stores.publish(a_draft(id="a"))
    await stores.owe(events, subscription)
    await drop_events(stores.database, (await stores.log.position()).head)
    [again] = await stores.publish(a_draft(id="a"))
    [outcome] = (await outcomes(stores, again)).rows
    assert outcome.deliveries == ()


async def test_they_come_page_by_page_to_those_who_see_them(stores: Stores) -> None:
    made = [await stores.subscribe(libraries=held) for held in (None, {"books"}, {"films"}, None, {"books"}, None)]
    [event] = await stores.publish()
    newest_first = [subscription.id for subscription in reversed(made)]

    async def pages(libraries: frozenset[str] | None) -> list[list[str]]:
        found, before = [], None
        while True:
            page = await outcomes(stores, event, limit=2, libraries=libraries, before=before)
            found.append([outcome.subscription_id for outcome in page.rows])
            if (before := page.more) is None:
                return found

    assert await pages(None) == [newest_first[:2], newest_first[2:4], newest_first[4:]]
    assert await pages(frozenset({"books"})) == [[made[4].id, made[1].id]]
    assert await pages(frozenset({"other"})) == [[]]


async def test_one_that_never_changed_its_filter_is_judged_by_what_it_was(stores: Stores) -> None:
    subscription = await stores.subscribe(filter=Filter(types=frozenset({"a"})))
    [event] = await stores.publish()
    await fan_out(stores)
    await stores.subscriptions.change(subscription.id, lambda one: replace(one, description="x"), UPDATED)
    assert await judged(stores, event) == (frozenset({"a"}), True)


async def test_an_event_is_judged_by_the_filter_of_its_time_for_as_long_as_that_is_known(stores: Stores) -> None:
    subscription = await stores.subscribe(filter=Filter(types=frozenset({"a"})))
    [first] = await stores.publish()
    await fan_out(stores)
    await wants(stores, subscription, "b")
    [second] = await stores.publish()
    assert await judged(stores, first) == (frozenset({"a"}), True)
    assert await judged(stores, second) == (frozenset({"b"}), True)
    await fan_out(stores)
    await wants(stores, subscription, "c")
    assert await judged(stores, second) == (frozenset({"b"}), True)
    # Once the fan-out had passed the first change, nobody needed the first filter any more.
    assert await judged(stores, first) == (frozenset({"c"}), False)


async def test_a_change_counts_from_its_notice_on(stores: Stores) -> None:
    subscription = await stores.subscribe(filter=Filter(types=frozenset({"gateway.*"})))
    await wants(stores, subscription, "b", "gateway.*")
    [_, notice] = await stores.notices(Cursor(0))
    assert await judged(stores, notice) == (frozenset({"b", "gateway.*"}), True)
