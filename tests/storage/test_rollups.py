"""What was settled, by minute, hour and day: each thing once, and only for those who may see it."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import text

from gateway.errors import StorageUnavailable
from gateway.rollups.rollups import Figures, Grouping, Interval, Place, Rollup, RollupQuery
from gateway.storage.database import Database, Transaction
from gateway.storage.folding import Folding
from gateway.storage.rollups import SqlRollups
from gateway.storage.settling import settle
from gateway.subscriptions import Subscription
from tests.builders import NOON, a_draft
from tests.storage.arrange import Stores, a_settlement, an_attempt
from webhooks.deliveries import Settlement
from webhooks.endpoints import Health
from webhooks.verdicts import Dead, Delivered, Reason, Retry, Verdict

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def rollups(database: Database) -> SqlRollups:
    return SqlRollups(database)


@pytest.fixture
def folding(database: Database) -> Folding:
    return Folding(database)


def asking(**question: Any) -> RollupQuery:
    asked = {"interval": Interval.HOUR, "grouping": Grouping.NOTHING, "since": NOON - DAY}
    return RollupQuery(**{"libraries": None, **asked, **question})


async def work_off(
    stores: Stores, subscription: Subscription, verdict: Verdict | None = None, **fields: Any
) -> list[Settlement]:
    """Settle everything that is due to *subscription*."""
    settled = [a_settlement(each, verdict, **fields) for each in await stores.due(subscription)]
    await stores.deliveries.settle(settled)
    return settled


async def publish(stores: Stores, *subscriptions: Subscription, times: int = 1, **draft: Any) -> None:
    await stores.owe(await stores.publish(*(a_draft(**draft) for _ in range(times))), *subscriptions)


async def whole(folding: Folding) -> None:
    while await folding.fold():
        pass


def numbers(rows: Sequence[Rollup]) -> list[tuple[str | None, int, int, int, int]]:
    return [(each.group, *_numbers(each.figures)) for each in rows]


def _numbers(figures: Figures) -> tuple[int, int, int, int]:
    """Attempts, failed ones, delivered, dead."""
    return figures.attempts, figures.failed_attempts, figures.delivered, figures.dead


async def test_each_attempt_and_each_end_counts_once(stores: Stores, rollups: SqlRollups, folding: Folding) -> None:
    subscription = await stores.subscribe()
    await publish(stores, subscription, times=3)
    one, two, three = await stores.due(subscription)
    await stores.settle(one)
    await stores.fail(two, due_at=NOON)
    await stores.kill(three)
    [again] = await stores.due(subscription)
    await stores.settle(again, Dead(Reason.EXPIRED), attempt=None)

    fresh = (await rollups.list(asking())).rows
    await whole(folding)

    assert numbers(fresh) == [(None, 3, 2, 1, 2)]
    assert (await rollups.list(asking())).rows == fresh


async def test_a_batch_that_is_stored_again_counts_once(stores: Stores, rollups: SqlRollups, folding: Folding) -> None:
    subscription = await stores.subscribe()
    await publish(stores, subscription, times=3)
    verdicts: tuple[Verdict, ...] = (Delivered(), Retry(NOON), Dead(Reason.EXHAUSTED))
    batch = [a_settlement(*each) for each in zip(await stores.due(subscription), verdicts, strict=True)]
    await stores.deliveries.settle(batch)
    await stores.deliveries.settle(batch)
    await folding.fold()
    await stores.deliveries.settle([*batch, *batch])

    await whole(folding)

    assert numbers((await rollups.list(asking())).rows) == [(None, 3, 2, 1, 1)]


async def test_a_batch_whose_commit_breaks_is_counted_when_it_is_stored(
    stores: Stores, rollups: SqlRollups, folding: Folding
) -> None:
    subscription = await stores.subscribe()
    await publish(stores, subscription, times=2)
    batch = [a_settlement(each) for each in await stores.due(subscription)]

    async def breaks(transaction: Transaction) -> None:
        await settle(transaction, batch, now=NOON)
        await transaction.connection.execute(text("SELECT * FROM nowhere"))

    with pytest.raises(StorageUnavailable):
        await stores.database.write(breaks)
    assert (await rollups.list(asking())).rows == ()
    await stores.deliveries.settle(batch)
    await whole(folding)
    assert numbers((await rollups.list(asking())).rows) == [(None, 2, 0, 2, 0)]


async def test_twice_in_one_batch_is_once(stores: Stores, rollups: SqlRollups) -> None:
    subscription = await stores.subscribe()
    await publish(stores, subscription)
    [delivery] = await stores.due(subscription)
    await stores.deliveries.settle([a_settlement(delivery), a_settlement(delivery)])
    assert numbers((await rollups.list(asking())).rows) == [(None, 1, 0, 1, 0)]


async def test_an_attempt_of_a_delivery_that_was_cancelled_meanwhile_is_an_attempt_only(
    stores: Stores, rollups: SqlRollups
) -> None:
    subscription = await stores.subscribe()
    await publish(stores, subscription)
    [delivery] = await stores.due(subscription)
    await stores.desk.cancel(delivery.id, now=NOON)
    await stores.settle(delivery)
    assert numbers((await rollups.list(asking())).rows) == [(None, 1, 0, 0, 0)]


async def test_figures_are_those_of_the_interval_in_which_attempts_ended(
    stores: Stores, rollups: SqlRollups, folding: Folding
) -> None:
    subscription = await stores.subscribe()
    for moment in (NOON - 3 * DAY, NOON - HOUR, NOON + timedelta(minutes=59), NOON):
        await publish(stores, subscription)
        await work_off(stores, subscription, at=moment)
        await folding.fold()

    async def starts(interval: Interval, **question: Any) -> list[tuple[Any, int]]:
        asked = asking(interval=interval, **{"since": NOON - 9 * DAY, **question})
        return [(each.start, each.figures.attempts) for each in (await rollups.list(asked)).rows]

    midnight = NOON.replace(hour=0)
    assert await starts(Interval.DAY) == [(midnight, 3), (midnight - 3 * DAY, 1)]
    assert await starts(Interval.HOUR) == [(NOON, 2), (NOON - HOUR, 1), (NOON - 3 * DAY, 1)]
    assert await starts(Interval.HOUR, since=NOON - timedelta(minutes=1)) == [(NOON, 2), (NOON - HOUR, 1)]
    assert await starts(Interval.HOUR, until=NOON) == [(NOON - HOUR, 1), (NOON - 3 * DAY, 1)]
    assert await starts(Interval.MINUTE, since=NOON) == [(NOON + timedelta(minutes=59), 1), (NOON, 1)]


async def test_times_are_told_apart(stores: Stores, rollups: SqlRollups, folding: Folding) -> None:
    """How long an attempt took; and how long the event did from its acceptance, not from when its delivery was made."""
    subscription = await stores.subscribe()
    events = await stores.publish(a_draft())
    stores.clock.advance(seconds=5)
    await stores.owe(events, subscription)
    stores.clock.advance(seconds=5)
    await work_off(stores, subscription, at=stores.clock())
    await whole(folding)
    [rollup] = (await rollups.list(asking())).rows
    spread = Figures()
    spread.add(rollup.figures)
    assert (len(spread.durations), len(spread.latencies)) == (1, 1)
    [duration], [latency] = spread.durations, spread.latencies
    assert 1.1**duration <= 20_000 <= 1.1 ** (duration + 1)
    assert 1.1**latency <= 10_000_000 <= 1.1 ** (latency + 1)


async def test_what_is_sent_again_says_nothing_about_how_long_an_event_takes(
    stores: Stores, rollups: SqlRollups
) -> None:
    subscription = await stores.subscribe()
    await publish(stores, subscription)
    [delivery] = await stores.due(subscription)
    await stores.settle(replace(delivery, replay_id="rpl_1"))
    [rollup] = (await rollups.list(asking())).rows
    assert (rollup.figures.delivered, rollup.figures.latencies) == (1, {})


# --- groups ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folded", [False, True])
async def test_groups_add_up(stores: Stores, rollups: SqlRollups, folding: Folding, folded: bool) -> None:  # noqa: FBT001 - a parameter of the test
    one, two = await stores.subscribe(id="sub_1"), await stores.subscribe(id="sub_2")
    await publish(stores, one, two, type="a", library_id="books")
    await publish(stores, one, type="b", library_id="films")
    for subscription in (one, two):
        await work_off(stores, subscription)
    if folded:
        await whole(folding)

    async def of(grouping: Grouping, **question: Any) -> list[tuple[str | None, int]]:
        page = await rollups.list(asking(grouping=grouping, **question))
        return [(each.group, each.figures.delivered) for each in page.rows]

    assert await of(Grouping.NOTHING) == [(None, 3)]
    assert await of(Grouping.SUBSCRIPTION) == [("sub_2", 1), ("sub_1", 2)]
    assert await of(Grouping.TYPE) == [("b", 1), ("a", 2)]
    assert await of(Grouping.LIBRARY) == [("films", 1), ("books", 2)]
    assert await of(Grouping.NOTHING, subscription_id="sub_1") == [(None, 2)]
    assert await of(Grouping.LIBRARY, subscription_id="sub_2") == [("books", 1)]
    assert await of(Grouping.TYPE, subscription_id="sub_?") == []


@pytest.mark.parametrize("folded", [False, True])
async def test_a_confined_key_sees_figures_of_subscriptions_that_it_holds_wholly(
    stores: Stores,
    rollups: SqlRollups,
    folding: Folding,
    folded: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    mine = await stores.subscribe(id="sub_mine", libraries={"books"})
    ours = await stores.subscribe(id="sub_ours", libraries={"books", "films"})
    theirs = await stores.subscribe(id="sub_theirs")
    gone = await stores.subscribe(id="sub_gone", libraries={"books"})
    await publish(stores, mine, ours, theirs, gone)
    for subscription in (mine, ours, theirs, gone):
        await work_off(stores, subscription)
    await stores.subscriptions.delete(gone.id)
    if folded:
        await whole(folding)

    async def of(libraries: set[str] | None, grouping: Grouping, **question: Any) -> list[tuple[str | None, int]]:
        held = None if libraries is None else frozenset(libraries)
        page = await rollups.list(asking(libraries=held, grouping=grouping, **question))
        return [(each.group, each.figures.delivered) for each in page.rows]

    assert await of({"books"}, Grouping.SUBSCRIPTION) == [("sub_mine", 1), ("sub_gone", 1)]
    assert await of({"books"}, Grouping.NOTHING) == [(None, 2)]
    assert await of({"books"}, Grouping.TYPE) == [("document.added", 2)]
    assert await of({"books", "films"}, Grouping.LIBRARY) == [("books", 3)]
    assert await of({"films"}, Grouping.NOTHING) == []
    assert await of({"books"}, Grouping.NOTHING, subscription_id="sub_theirs") == []
    assert await of({"books"}, Grouping.NOTHING, subscription_id="sub_mine") == [(None, 1)]
    assert await of(None, Grouping.NOTHING) == [(None, 4)]


async def test_names_stop_and_what_is_beyond_them_is_counted_all_the_same(stores: Stores, rollups: SqlRollups) -> None:
    folding = Folding(stores.database, most_names=3, most_names_of_all=4)
    subscription = await stores.subscribe(id="sub_1")
    for number in range(6):
        await publish(stores, subscription, library_id=f"library{number}")
        await work_off(stores, subscription)
        await folding.fold()
    await publish(stores, subscription, library_id="library0")
    await work_off(stores, subscription)
    await folding.fold()

    async def of(**question: Any) -> dict[str | None, int]:
        page = await rollups.list(asking(grouping=Grouping.LIBRARY, **question))
        return {each.group: each.figures.delivered for each in page.rows}

    assert await of(subscription_id="sub_1") == {"library0": 2, "library1": 1, "library2": 1, None: 3}
    assert await of() == {"library0": 2, "library1": 1, "library2": 1, "library3": 1, None: 2}


async def test_names_stop_within_one_fold_too(stores: Stores, rollups: SqlRollups) -> None:
    subscription = await stores.subscribe(id="sub_1")
    for number in range(5):
        await publish(stores, subscription, library_id=f"library{number}")
    await work_off(stores, subscription)
    await Folding(stores.database, most_names=2, most_names_of_all=2).fold()
    page = await rollups.list(asking(grouping=Grouping.LIBRARY, subscription_id="sub_1"))
    assert sorted(each.figures.delivered for each in page.rows) == [1, 1, 3]


# --- pages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grouping", list(Grouping))
@pytest.mark.parametrize("libraries", [None, frozenset({"l0", "l1", "l2", "l3"})])
@pytest.mark.parametrize("rows_at_once", [2, 1_000])
async def test_pages_of_any_size_are_the_whole(
    stores: Stores, folding: Folding, grouping: Grouping, libraries: frozenset[str] | None, rows_at_once: int
) -> None:
    rollups = SqlRollups(stores.database, rows_at_once=rows_at_once)
    subscriptions = [await stores.subscribe(id=f"sub_{n}", libraries={f"l{n}"}) for n in range(4)]
    # Some is in rollups only, some in tallies only, the newest and the oldest hour in both.
    for is_folded, hours in ((True, (0, 1, 3)), (False, (0, 2, 3))):
        for hour in hours:
            for number, subscription in enumerate(subscriptions):
                await publish(stores, subscription, library_id=f"l{number}", type=f"t{number % 2}")
                await work_off(stores, subscription, at=NOON - hour * HOUR)
        if is_folded:
            await whole(folding)

    async def paged(limit: int) -> list[Rollup]:
        rows: list[Rollup] = []
        resume: Place | None = None
        while True:
            page = await rollups.list(asking(grouping=grouping, libraries=libraries, limit=limit, resume=resume))
            assert len(page.rows) <= limit
            rows += page.rows
            if (resume := page.more) is None:
                return rows

    all_at_once = await paged(500)
    assert [(row.start, row.group or "") for row in all_at_once] == sorted(
        {(row.start, row.group or "") for row in all_at_once}, reverse=True
    )
    assert sum(row.figures.delivered for row in all_at_once) == 24
    for limit in (1, 2, 3, 5):
        assert await paged(limit) == all_at_once


async def test_a_page_examines_no_more_than_it_may_and_goes_on_where_it_stopped(
    stores: Stores, folding: Folding
) -> None:
    rollups = SqlRollups(stores.database, examined_rows=4, rows_at_once=2)
    subscriptions = [await stores.subscribe(id=f"sub_{n}", libraries={"a" if n == 5 else "b"}) for n in range(6)]
    for hour in range(3):
        await publish(stores, *subscriptions, library_id="a")
        for subscription in subscriptions:
            await work_off(stores, subscription, at=NOON - hour * HOUR)
    await whole(folding)
    found: list[Rollup] = []
    resume: Place | None = None
    pages = 0
    while True:
        page = await rollups.list(asking(libraries=frozenset({"a"}), resume=resume))
        found, pages = [*found, *page.rows], pages + 1
        if (resume := page.more) is None:
            break
    assert [(each.start, each.figures.delivered) for each in found] == [(NOON - n * HOUR, 1) for n in range(3)]
    assert pages > 1


# --- folding and dropping -------------------------------------------------------------------------------------------


async def test_folding_takes_a_bounded_number_at_once(stores: Stores, rollups: SqlRollups) -> None:
    folding = Folding(stores.database, sources_at_once=1)
    one, two = await stores.subscribe(), await stores.subscribe()
    for subscription in (one, one, one, two, two, one):
        await publish(stores, subscription)
        await work_off(stores, subscription)
    # Those of one source come together as long as no other comes between.
    assert [await folding.fold() for _ in range(4)] == [True, True, True, False]
    assert numbers((await rollups.list(asking())).rows) == [(None, 6, 0, 6, 0)]


async def test_what_another_has_folded_meanwhile_is_not_counted_again(stores: Stores, rollups: SqlRollups) -> None:
    foldings = [Folding(stores.database, sources_at_once=most) for most in (3, 2, 1)]
    subscriptions = [await stores.subscribe() for _ in range(4)]
    for subscription in subscriptions:
        await publish(stores, subscription)
        await work_off(stores, subscription)
    while any(await asyncio.gather(*(folding.fold() for folding in foldings))):
        pass
    found = (await rollups.list(asking(grouping=Grouping.SUBSCRIPTION))).rows
    assert [each.figures.delivered for each in found] == [1] * len(subscriptions)
    assert numbers((await rollups.list(asking())).rows) == [(None, 4, 0, 4, 0)]


async def test_tallies_are_put_together_and_each_source_is_folded_once(stores: Stores, rollups: SqlRollups) -> None:
    folding = Folding(stores.database, gathered_at_once=40)
    subscriptions = [await stores.subscribe() for _ in range(12)]
    assert await folding.gather() == (0, False)
    for times in (1, 2, 1):
        await publish(stores, *subscriptions, times=times)
        for subscription in subscriptions:
            await work_off(stores, subscription)
    fresh = (await rollups.list(asking(grouping=Grouping.SUBSCRIPTION))).rows
    assert [await folding.gather() for _ in range(2)] == [(3, False)] * 2  # twelve sources: five, five and two
    assert (await rollups.list(asking(grouping=Grouping.SUBSCRIPTION))).rows == fresh
    assert [await folding.fold() for _ in range(4)] == [True, True, True, False]
    assert (await rollups.list(asking(grouping=Grouping.SUBSCRIPTION))).rows == fresh
    assert numbers((await rollups.list(asking())).rows) == [(None, 48, 0, 48, 0)]


async def test_a_bounded_number_is_put_together_at_once(stores: Stores, rollups: SqlRollups) -> None:
    folding = Folding(stores.database, gathered_at_once=2)
    subscription = await stores.subscribe()
    for _ in range(3):
        await publish(stores, subscription)
        await work_off(stores, subscription)
    assert [await folding.gather() for _ in range(3)] == [(1, True), (1, True), (1, False)]
    await whole(folding)
    assert numbers((await rollups.list(asking())).rows) == [(None, 3, 0, 3, 0)]


async def test_tallies_of_a_gateway_that_stored_more_in_one_are_put_together_too(
    stores: Stores, rollups: SqlRollups, folding: Folding, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = await stores.subscribe()
    await stores.owe(await stores.publish(*(a_draft(library_id=f"l{n}") for n in range(90))), subscription)
    monkeypatch.setattr("gateway.storage.tallies.ENTRIES_AT_ONCE", 45)
    await work_off(stores, subscription)
    monkeypatch.undo()
    assert await folding.gather() == (2, False)
    await whole(folding)
    assert numbers((await rollups.list(asking())).rows) == [(None, 90, 0, 90, 0)]


async def test_a_batch_of_many_sources_is_stored_in_parts(
    stores: Stores, rollups: SqlRollups, folding: Folding
) -> None:
    subscription = await stores.subscribe()
    await stores.owe(await stores.publish(*(a_draft(library_id=f"l{n}") for n in range(250))), subscription)
    await work_off(stores, subscription)
    async with stores.database.reading() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM tallies"))).scalar_one() == 50
    await whole(folding)
    assert numbers((await rollups.list(asking())).rows) == [(None, 250, 0, 250, 0)]


async def test_old_rollups_are_dropped_each_in_its_time(stores: Stores, rollups: SqlRollups) -> None:
    folding = Folding(stores.database, rows_at_once=2)
    subscription = await stores.subscribe()
    ages = (timedelta(0), 3 * DAY, 40 * DAY, 500 * DAY)
    for age in ages:
        await publish(stores, subscription)
        await work_off(stores, subscription, at=NOON - age)
    await whole(folding)

    async def left(interval: Interval) -> int:
        return len((await rollups.list(asking(interval=interval, since=NOON - 900 * DAY))).rows)

    assert [await left(interval) for interval in Interval] == [4, 4, 4]
    while await folding.drop_old(NOON):
        pass
    assert [await left(interval) for interval in Interval] == [1, 2, 3]


# --- how one stands, and all ----------------------------------------------------------------------------------------


async def test_how_a_subscription_stands(stores: Stores, rollups: SqlRollups, folding: Folding) -> None:
    subscription, other = await stores.subscribe(), await stores.subscribe()
    await publish(stores, subscription, other, times=4)
    one, two, three, _ = await stores.due(subscription)
    await stores.settle(one, at=NOON - 30 * HOUR)
    await whole(folding)
    await stores.kill(two)
    await stores.desk.cancel(three.id, now=NOON)
    health = Health(consecutive_failures=3, circuit_open_until=NOON + HOUR)
    [left] = await stores.due(subscription)
    await stores.settle(left, Retry(NOON + HOUR), health=health, attempt=an_attempt(status_code=500))

    stands = await rollups.standing(subscription.id, since=NOON - DAY)

    assert stands.counts == {"pending": 1, "delivered": 1, "dead": 1, "cancelled": 1}
    assert _numbers(stands.recent) == (2, 2, 0, 1)
    assert (stands.oldest_due_at, stands.health) == (NOON + HOUR, health)


async def test_how_a_new_subscription_stands(stores: Stores, rollups: SqlRollups) -> None:
    stands = await rollups.standing("sub_new", since=NOON - DAY)
    assert set(stands.counts.values()) == {0}
    assert (stands.recent, stands.oldest_due_at, stands.health) == (Figures(), None, Health())


async def test_how_all_stand_together(stores: Stores, rollups: SqlRollups) -> None:
    assert set((await rollups.overview()).counts.values()) == {0}
    one, two = await stores.subscribe(), await stores.subscribe()
    await publish(stores, one, two, times=2)
    first, _ = await stores.due(one)
    await stores.settle(first)
    await stores.settle((await stores.due(two))[0], Retry(NOON), health=Health(circuit_open_until=NOON + HOUR))
    overview = await rollups.overview()
    assert overview.counts == {"pending": 3, "delivered": 1, "dead": 0, "cancelled": 0}
    assert (overview.open_circuits, overview.oldest_due_at) == (1, NOON)
