"""From events to deliveries: who gets what, and that a change of a subscription takes effect where it happened."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
import pytest

from gateway.errors import StorageUnavailable
from gateway.events import Cursor, Draft, EventType, LoggedEvent, Page
from gateway.fanout.fanout import Fanout
from gateway.fanout.interests import Interests
from gateway.fanout.put_off import PUT_OFF_AT_MOST, WORTH_IT
from gateway.filters import Filter
from gateway.ports.fanout import FanoutPlace, Wanted
from gateway.storage.memory import MemoryEventLog
from gateway.subscriptions import Interest
from tests.fakes.deliveries import a_delivery
from tests.until import until
from webhooks.deliveries import Delivery

AT = datetime(2026, 1, 1, tzinfo=UTC)


def an_event(library_id: str) -> LoggedEvent:
    return LoggedEvent(
        cursor=Cursor(9),
        id="e",
        type=EventType.CUSTOM,
        library_id=library_id,
        timestamp=AT,
        accepted_at=AT,
        data=b"{}",
    )


def an_interest(id_: str, *, since: int = 0, libraries: frozenset[str] | None = None, **filter_: Any) -> Interest:
    return Interest(subscription_id=id_, filter=Filter(**filter_), libraries=libraries, since=Cursor(since))


class Store:
    """FanoutStore and interests in memory; fails or answers "moved elsewhere" when told to."""

    def __init__(self, *interests: Interest, at: int = 0) -> None:
        self.at = FanoutPlace(cursor=Cursor(at))
        self.given: list[Interest] = list(interests)
        self.made: list[tuple[int, str]] = []
        self.advances: list[tuple[int, int]] = []
        self.faults: list[Exception | None] = []
        """What the next writes raise, the last one first; None: nothing."""
        self.moved = asyncio.Condition()

    async def place(self) -> FanoutPlace:
        return self.at

    async def interests(self, at: Cursor) -> Sequence[Interest]:
        assert at == self.at.cursor
        return self.given

    async def advance(
        self, since: FanoutPlace, to: FanoutPlace, wanted: Sequence[Wanted]
    ) -> Mapping[str, Sequence[Delivery]] | None:
        if self.faults and (fault := self.faults.pop()) is not None:
            raise fault
        if since != self.at:
            return None
        self.advances.append((max(since.cursor, since.ahead), max(to.cursor, to.ahead)))
        self.made += [(event.cursor, id_) for event, ids in wanted for id_ in ids]
        async with self.moved:
            self.at = to
            self.moved.notify_all()
        return {id_: [a_delivery(endpoint_id=id_)] for _, ids in wanted for id_ in ids}

    async def until(self, cursor: int) -> None:
        async with self.moved:
            await self.moved.wait_for(lambda: self.at.cursor >= cursor)


@asynccontextmanager
async def running(
    log: MemoryEventLog, store: Store, **limits: Any
) -> AsyncIterator[tuple[Fanout, list[Mapping[str, Sequence[Delivery]]]]]:
    offered: list[Mapping[str, Sequence[Delivery]]] = []
    fanout = Fanout(log, store, store, offer=offered.append, **limits)
    task = asyncio.create_task(fanout.run())
    try:
        yield fanout, offered
    finally:
        task.cancel()
        await asyncio.wait([task])


async def logged(log: MemoryEventLog, *drafts: tuple[str, str] | Draft) -> Page:
    after = (await log.position()).head
    await log.append(
        [
            [
                draft
                if isinstance(draft, Draft)
                else Draft(id=f"e{after}-{n}", type=EventType(draft[0]), library_id=draft[1], data=b"{}")
                for n, draft in enumerate(drafts)
            ]
        ]
    )
    return await log.read(after)


def a_notice(what: str, id_: str, audience: frozenset[str] | None = None, **filter_: Any) -> Draft:
    return Draft(
        id=f"n-{what}-{id_}",
        type=EventType(f"gateway.subscription.{what}"),
        library_id="gateway",
        data=msgspec.json.encode({"subscription_id": id_, "status": "active", **filter_}),
        audience=audience,
    )


async def test_each_event_becomes_a_delivery_of_each_subscription_that_wants_it_and_is_offered_to_its_lane() -> None:
    log, store = (
        MemoryEventLog(),
        Store(
            an_interest("all"),
            an_interest("books", library_ids=frozenset({"books"})),
            an_interest("added", types=frozenset({"document.added"})),
            an_interest("confined", libraries=frozenset({"maps"})),
        ),
    )
    async with running(log, store) as (fanout, offered):
        fanout.feed(await logged(log, ("document.added", "books"), ("document.deleted", "maps")))
        await store.until(2)
    assert sorted(store.made) == [(1, "added"), (1, "all"), (1, "books"), (2, "all"), (2, "confined")]
    assert set().union(*offered) == {"all", "books", "added", "confined"}


async def test_what_was_accepted_before_a_subscription_was_made_is_not_for_it() -> None:
    log, store = MemoryEventLog(), Store(an_interest("later", since=1))
    async with running(log, store) as (fanout, _):
        fanout.feed(await logged(log, ("a", "x"), ("a", "x")))
        await store.until(2)
    assert store.made == [(2, "later")]


async def test_changes_of_a_subscription_take_effect_at_their_place_in_the_log_within_one_page() -> None:
    log, store = MemoryEventLog(), Store()
    async with running(log, store) as (fanout, _):
        fanout.feed(
            await logged(
                log,
                ("a", "x"),
                a_notice("created", "s", types=["a"]),
                ("a", "x"),
                ("b", "x"),
                a_notice("updated", "s", types=["b"]),
                ("a", "x"),
                ("b", "x"),
                a_notice("deleted", "s", types=["b"]),
                ("b", "x"),
            )
        )
        await store.until(9)
    assert store.made == [(3, "s"), (7, "s")]


async def test_a_subscription_is_not_told_of_its_own_creation_and_of_others_only_if_it_names_them() -> None:
    log, store = MemoryEventLog(), Store(an_interest("all"), an_interest("own", types=frozenset({"gateway.*"})))
    async with running(log, store) as (fanout, _):
        fanout.feed(await logged(log, a_notice("created", "s", types=["gateway.*"])))
        await store.until(1)
    assert store.made == [(1, "own")]


async def test_a_confined_subscription_sees_only_notices_about_what_it_may_see() -> None:
    log = MemoryEventLog()
    store = Store(an_interest("own", types=frozenset({"gateway.*"}), libraries=frozenset({"x", "y"})))
    async with running(log, store) as (fanout, _):
        fanout.feed(
            await logged(
                log,
                a_notice("updated", "a", audience=frozenset({"x"})),
                a_notice("updated", "b", audience=frozenset({"z"})),
                a_notice("updated", "c", audience=None),
            )
        )
        await store.until(3)
    assert store.made == [(1, "own")]


async def test_pages_that_were_never_announced_are_read_from_the_log() -> None:
    log, store = MemoryEventLog(), Store(an_interest("all"), at=1)
    await logged(log, ("a", "x"), ("a", "x"), ("a", "x"))
    async with running(log, store) as (fanout, _):
        await store.until(3)
        await logged(log, ("a", "x"))  # nobody says so
        fanout.feed(await logged(log, ("a", "x")))  # this one does, and there is a hole before it
        await store.until(5)
    assert store.made == [(n, "all") for n in range(2, 6)]


class CountingLog(MemoryEventLog):
    reads = 0

    async def read(self, *args: Any, **kwargs: Any) -> Page:
        self.reads += 1
        return await super().read(*args, **kwargs)


async def test_announced_pages_are_not_read_again_and_one_that_was_not_is_found_at_the_next_look() -> None:
    log, store = CountingLog(), Store(an_interest("all"))
    async with running(log, store, look_seconds=30) as (fanout, _):
        await until(lambda: log.reads == 1)  # there was nothing yet
        for number in range(1, 6):
            fanout.feed(await logged(log, ("a", "x")))  # reads it, for the test
            await store.until(number)
        for _ in range(10):
            await asyncio.sleep(0)
        assert log.reads == 1 + 5
    async with running(log, store, look_seconds=0.01):
        await logged(log, ("a", "x"))  # nobody says so
        await store.until(6)
    assert store.made == [(n, "all") for n in range(1, 7)]


async def test_announced_pages_are_joined_into_one_commit() -> None:
    log, store = MemoryEventLog(), Store(an_interest("all"))
    pages = [await logged(log, ("a", "x")) for _ in range(5)]
    fanout = Fanout(log, store, store, offer=lambda _: None)
    for page in pages:
        fanout.feed(page)
    task = asyncio.create_task(fanout.run())
    await store.until(5)
    task.cancel()
    assert store.advances == [(0, 5)]


async def test_a_large_page_is_committed_in_parts_and_nothing_of_it_twice() -> None:
    log, store = MemoryEventLog(), Store(an_interest("one"), an_interest("two"))
    async with running(log, store, deliveries_at_once=4) as (fanout, _):
        fanout.feed(await logged(log, *[("a", "x")] * 5))
        await store.until(5)
    assert store.advances == [(0, 2), (2, 4), (4, 5)]
    assert sorted(store.made) == sorted((n, name) for n in range(1, 6) for name in ("one", "two"))


async def test_a_database_that_fails_delays_and_loses_nothing() -> None:
    log, store = MemoryEventLog(), Store(an_interest("all"))
    store.faults = [StorageUnavailable("no"), StorageUnavailable("no")]
    async with running(log, store, look_seconds=0.001) as (fanout, _):
        fanout.feed(await logged(log, ("a", "x"), ("a", "x")))
        await store.until(2)
    assert store.made == [(1, "all"), (2, "all")]


async def test_when_another_process_has_moved_the_cursor_it_goes_on_from_there() -> None:
    log, store = MemoryEventLog(), Store(an_interest("all"))
    async with running(log, store) as (fanout, _):
        fanout.feed(await logged(log, ("a", "x")))
        await store.until(1)
        store.at = FanoutPlace(cursor=Cursor(2))
        fanout.feed(await logged(log, ("a", "x"), ("a", "x")))
        await store.until(3)
    assert store.made == [(1, "all"), (3, "all")]


def test_interests_that_change_libraries_leave_nothing_behind() -> None:
    interests = Interests([an_interest("s", library_ids=frozenset({"x"}))])
    interests.apply(
        LoggedEvent(
            cursor=Cursor(5),
            id="n",
            type=EventType("gateway.subscription.updated"),
            library_id="gateway",
            timestamp=AT,
            accepted_at=AT,
            data=b'{"subscription_id":"s","library_ids":["y"]}',
        )
    )
    assert [i.subscription_id for i in interests.of(an_event("x"))] == []
    assert [i.subscription_id for i in interests.of(an_event("y"))] == ["s"]


STUCK = [f"stuck-{number}" for number in range(WORTH_IT)]
NEVER = 60.0


def crowd() -> Store:
    return Store(*(an_interest(id_) for id_ in (*STUCK, "ready")))


def came(offered: Sequence[object], count: int) -> bool:
    return len(offered) == count


def all_of(*cursors: int) -> list[tuple[int, str]]:
    return sorted((cursor, id_) for cursor in cursors for id_ in (*STUCK, "ready"))


async def test_lanes_that_can_send_do_not_wait_for_the_rows_of_those_that_are_stuck() -> None:
    log, store = MemoryEventLog(), crowd()
    async with running(log, store, is_stuck=STUCK.__contains__, put_off_seconds=NEVER) as (fanout, offered):
        for n in (1, 2):
            fanout.feed(await logged(log, ("a", "books")))
            await until(partial(came, offered, n))
        assert store.made == [(1, "ready"), (2, "ready")]
        assert store.at == FanoutPlace(cursor=Cursor(0), ahead=Cursor(2), behind=dict.fromkeys(STUCK, Cursor(0)))
        assert fanout.cursor == 0


async def test_what_was_put_off_is_made_soon_for_all_events_in_one_commit() -> None:
    log, store = MemoryEventLog(), crowd()
    async with running(log, store, is_stuck=STUCK.__contains__, put_off_seconds=0.05) as (fanout, offered):
        fanout.feed(await logged(log, ("a", "books")))
        await until(lambda: bool(offered))
        fanout.feed(await logged(log, ("a", "books")))
        await store.until(2)
    assert store.at == FanoutPlace(cursor=Cursor(2))
    assert sorted(store.made) == all_of(1, 2)
    assert [made for made in store.made if made[1] == STUCK[0]] == [(1, STUCK[0]), (2, STUCK[0])]


async def test_events_for_nobody_but_stuck_lanes_need_no_commit_of_their_own() -> None:
    log, store = MemoryEventLog(), Store(*(an_interest(id_) for id_ in STUCK))
    async with running(log, store, is_stuck=STUCK.__contains__, put_off_seconds=0.05) as (fanout, _):
        for _ in range(3):
            fanout.feed(await logged(log, ("a", "books")))
            await asyncio.sleep(0)
        await store.until(3)
    assert store.advances == [(0, 3)]


async def test_much_is_not_put_off_for_long() -> None:
    log, store = MemoryEventLog(), crowd()
    async with running(log, store, is_stuck=STUCK.__contains__, put_off_seconds=NEVER) as (fanout, _):
        events = PUT_OFF_AT_MOST // len(STUCK) + 1
        fanout.feed(await logged(log, *[("a", "books")] * events))
        await store.until(events)
    assert sorted(store.made) == all_of(*range(1, events + 1))


async def test_a_lane_that_moves_again_has_its_next_event_after_all_that_it_lacks() -> None:
    log, store, stuck = MemoryEventLog(), crowd(), set(STUCK)
    async with running(log, store, is_stuck=stuck.__contains__, put_off_seconds=0.05) as (fanout, offered):
        fanout.feed(await logged(log, ("a", "books")))
        await until(partial(came, offered, 1))
        stuck.remove(STUCK[3])
        fanout.feed(await logged(log, ("a", "books")))
        await store.until(2)
        stuck -= set(STUCK)
        fanout.feed(await logged(log, ("a", "books")))
        await store.until(3)
    assert sorted(store.made) == all_of(1, 2, 3)
    assert [cursor for cursor, id_ in store.made if id_ == STUCK[3]] == [1, 2, 3]


async def test_few_stuck_lanes_are_not_worth_a_second_commit() -> None:
    log, store = MemoryEventLog(), crowd()
    async with running(log, store, is_stuck=STUCK[1:].__contains__, put_off_seconds=NEVER) as (fanout, _):
        fanout.feed(await logged(log, ("a", "books")))
        await store.until(1)
    assert store.advances == [(0, 1)]
    assert sorted(store.made) == all_of(1)


async def test_a_lane_that_gets_stuck_meanwhile_is_behind_from_there_on_only() -> None:
    log, store, stuck = MemoryEventLog(), crowd(), set(STUCK)
    store.given.append(an_interest("late"))
    async with running(log, store, is_stuck=stuck.__contains__, put_off_seconds=NEVER) as (fanout, offered):
        fanout.feed(await logged(log, ("a", "books")))
        await until(lambda: len(offered) == 1)
        stuck.add("late")
        fanout.feed(await logged(log, ("a", "books")))
        await until(lambda: len(offered) == 2)
    assert store.at.behind == {**dict.fromkeys(STUCK, Cursor(0)), "late": Cursor(1)}
    store.made.clear()
    async with running(log, store):  # it was killed, and finds its place
        await store.until(2)
    assert sorted(store.made) == sorted([*((n, id_) for n in (1, 2) for id_ in STUCK), (2, "late")])


@pytest.mark.parametrize("at_once", [1, 2_000], ids=["event by event", "at once"])
async def test_what_was_put_off_when_the_process_ended_is_made_by_the_next_and_nobody_gets_it_twice(
    at_once: int,
) -> None:
    log, store = MemoryEventLog(), crowd()
    async with running(log, store, is_stuck=STUCK.__contains__, put_off_seconds=NEVER) as (fanout, offered):
        for n in (1, 2, 3):
            fanout.feed(await logged(log, ("a", "books")))
            await until(partial(came, offered, n))
    await logged(log, ("a", "books"))
    async with running(log, store, is_stuck=STUCK.__contains__, deliveries_at_once=at_once):
        await store.until(4)
    assert sorted(store.made) == all_of(1, 2, 3, 4)
    assert store.at == FanoutPlace(cursor=Cursor(4))


async def test_a_database_that_fails_when_what_was_put_off_is_made_loses_nothing_of_it() -> None:
    log, store = MemoryEventLog(), crowd()
    async with running(log, store, is_stuck=STUCK.__contains__, put_off_seconds=0.05, look_seconds=0.01) as (
        fanout,
        offered,
    ):
        fanout.feed(await logged(log, ("a", "books")))
        await until(lambda: bool(offered))
        store.faults = [StorageUnavailable("gone"), StorageUnavailable("gone")]
        await store.until(1)
        assert not store.faults
        fanout.feed(await logged(log, ("a", "books")))
        await store.until(2)
    assert sorted(store.made) == all_of(1, 2)
