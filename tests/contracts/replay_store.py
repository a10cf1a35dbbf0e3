"""What every ReplayStore promises. An adapter passes by subclassing the contract with a `subject` fixture."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

import pytest

from gateway.errors import Conflict
from gateway.events import Cursor, Draft, LoggedEvent
from gateway.filters import Filter
from gateway.ports.replays import Found, Replay, ReplayStore, Selection, Stretch
from tests.builders import a_draft
from webhooks.deliveries import Delivery, DeliveryStatus

SECOND = timedelta(seconds=1)


class ReplaysUnderTest(Protocol):
    """A store over an empty log, with what a test has to be able to do around it."""

    store: ReplayStore

    @property
    def now(self) -> datetime: ...

    def pass_time(self, seconds: float) -> None: ...

    async def subscribe(self) -> str:
        """An active subscription to everything; its id."""

    async def publish(self, *drafts: Draft) -> Sequence[LoggedEvent]: ...

    async def fan_out(self, *owed: tuple[LoggedEvent, str, DeliveryStatus]) -> None:
        """Up to the head of the log; what came of the deliveries it made of *owed*."""

    async def try_one(self, delivery: Delivery, status: DeliveryStatus) -> None:
        """One attempt of a replayed delivery, which leaves it in *status*."""

    async def pause(self, subscription_id: str) -> None: ...

    async def delete(self, subscription_id: str) -> None: ...

    async def drop(self, until: Cursor) -> None:
        """Retention has forgotten all up to here."""

    async def progress(self, replay_id: str) -> tuple[str, int, dict[str, int]]:
        """Its status, how many it has made, and how many of those are in which status."""


def of(subscription_id: str, **fields: object) -> Selection:
    return Selection(**{"subscription_id": subscription_id, "own": Filter(), "libraries": None, **fields})  # type: ignore[arg-type]  # the tests name real fields


async def everything(subject: ReplaysUnderTest) -> Stretch:
    return await subject.store.stretch(subject.now - 10_000 * SECOND, None)


async def found(subject: ReplaysUnderTest, selection: Selection, *, limit: int = 100) -> Found:
    return await subject.store.find(selection, await everything(subject), limit=limit)


async def started(subject: ReplaysUnderTest, selection: Selection, *, matched: int = 0, **fields: object) -> Replay:
    """A new replay of everything, as its runner sees it."""
    given: dict[str, object] = {"max_per_second": None, "at_most": 10, "now": subject.now, **fields}
    stretch = await everything(subject)
    replay_id = await subject.store.start(selection, stretch, matched=matched, **given)  # type: ignore[arg-type]  # likewise
    assert replay_id is not None
    return await seen(subject, replay_id)


async def seen(subject: ReplaysUnderTest, replay_id: str) -> Replay:
    [replay] = [one for one in (await subject.store.unfinished()).replays if one.id == replay_id]
    return replay


async def unfinished(subject: ReplaysUnderTest) -> list[str]:
    return [one.id for one in (await subject.store.unfinished()).replays]


class ReplayStoreContract:
    async def test_a_stretch_is_of_times_of_acceptance_and_ends_with_the_log(self, subject: ReplaysUnderTest) -> None:
        moments = []
        for _ in range(4):
            moments.append(subject.now)
            await subject.publish(a_draft())
            subject.pass_time(10)
        assert await subject.store.stretch(moments[1], None) == Stretch(after=Cursor(1), last=Cursor(4))
        assert await subject.store.stretch(moments[1], moments[3]) == Stretch(after=Cursor(1), last=Cursor(3))
        assert await subject.store.stretch(moments[0] - SECOND, moments[1]) == Stretch(after=Cursor(0), last=Cursor(1))
        for since, until in ((moments[3] + SECOND, None), (moments[2], moments[2]), (moments[2], moments[1])):
            empty = await subject.store.stretch(since, until)
            assert empty.after == empty.last

    async def test_a_stretch_since_before_what_was_dropped_begins_with_the_earliest(
        self, subject: ReplaysUnderTest
    ) -> None:
        long_ago = subject.now
        await subject.publish(*(a_draft() for _ in range(4)))
        await subject.drop(Cursor(2))
        assert await subject.store.stretch(long_ago, None) == Stretch(after=Cursor(2), last=Cursor(4))
        empty = await subject.store.stretch(long_ago - 2 * SECOND, long_ago - SECOND)
        assert empty.after == empty.last

    @pytest.mark.parametrize(
        ("selected", "expected"),
        [
            ({}, "abc"),
            ({"own": Filter(types=frozenset({"document.*"}))}, "ab"),
            ({"own": Filter(types=frozenset({"*", "gateway.*"}))}, "abcde"),
            ({"own": Filter(library_ids=frozenset({"films"}))}, "bc"),
            ({"libraries": frozenset({"books"})}, "a"),
            ({"asked": Filter(types=frozenset({"custom"}))}, "c"),
            ({"asked": Filter(types=frozenset({"gateway.*"}))}, ""),
            ({"asked": Filter(library_ids=frozenset({"books", "other"}))}, "a"),
            ({"own": Filter(types=frozenset({"gateway.*"})), "asked": Filter(types=frozenset({"*"}))}, ""),
            (
                {"own": Filter(types=frozenset({"document.*"})), "asked": Filter(types=frozenset({"document.added"}))},
                "a",
            ),
            ({"libraries": frozenset({"books"}), "own": Filter(library_ids=frozenset({"films"}))}, ""),
        ],
    )
    async def test_both_filters_choose(
        self, subject: ReplaysUnderTest, selected: dict[str, object], expected: str
    ) -> None:
        await subject.publish(
            a_draft(id="a", library_id="books"),
            a_draft(id="b", library_id="films", type="document.deleted"),
            a_draft(id="c", library_id="films", type="custom"),
            a_draft(id="d", library_id="gateway", type="gateway.ping"),
            a_draft(id="e", library_id="gateway", type="gateway.ping"),
        )
        selection = of("sub_any", **selected)
        chosen = await found(subject, selection)
        assert "".join(event.id for event in chosen.events) == expected
        assert chosen.last == 5
        if selection.is_plain:
            counted = await subject.store.count(selection, await everything(subject))
            assert (counted.matched, counted.last) == (len(expected), 5)

    async def test_a_read_ends_where_its_limit_does_and_goes_on_from_there(self, subject: ReplaysUnderTest) -> None:
        await subject.publish(*(a_draft(type=type_) for type_ in ("a", "b", "a", "b", "a", "b")))
        selection, stretch = of("sub_any", own=Filter(types=frozenset({"a"}))), await everything(subject)
        first = await subject.store.find(selection, stretch, limit=2)
        assert ([event.cursor for event in first.events], first.last) == ([1, 3], 3)
        second = await subject.store.find(selection, Stretch(after=first.last, last=stretch.last), limit=2)
        assert ([event.cursor for event in second.events], second.last) == ([5], 6)

    async def test_of_a_stretch_that_was_dropped_nothing_is_found(self, subject: ReplaysUnderTest) -> None:
        await subject.publish(*(a_draft() for _ in range(5)))
        await subject.drop(Cursor(4))
        gone = Stretch(after=Cursor(0), last=Cursor(3))
        assert await subject.store.find(of("sub_any"), gone, limit=5) == Found(events=(), last=Cursor(3))
        assert (await subject.store.count(of("sub_any"), gone)).matched == 0
        partly = Stretch(after=Cursor(0), last=Cursor(5))
        assert [event.cursor for event in (await subject.store.find(of("sub_any"), partly, limit=5)).events] == [5]

    async def test_undelivered_are_those_with_no_delivery_here_that_is_pending_or_delivered(
        self, subject: ReplaysUnderTest
    ) -> None:
        here, elsewhere = await subject.subscribe(), await subject.subscribe()
        pending, delivered, dead, other, none = await subject.publish(*(a_draft() for _ in range(5)))
        await subject.fan_out(
            (pending, here, DeliveryStatus.PENDING),
            (delivered, here, DeliveryStatus.DELIVERED),
            (dead, here, DeliveryStatus.DEAD),
            (other, elsewhere, DeliveryStatus.DELIVERED),
        )
        selection = of(here, undelivered=True)
        chosen = await found(subject, selection)
        assert [event.id for event in chosen.events] == [dead.id, other.id, none.id]
        counted = await subject.store.count(selection, await everything(subject))
        assert counted.matched == 3
        replay = await started(subject, selection)
        await subject.store.make(replay, chosen.events[:1], to=dead.cursor)
        again = await found(subject, selection)
        assert [event.id for event in again.events] == [other.id, none.id]

    async def test_what_was_served_while_it_was_looked_at_is_left_out(self, subject: ReplaysUnderTest) -> None:
        here = await subject.subscribe()
        first, second = await subject.publish(a_draft(), a_draft())
        replay = await started(subject, of(here, undelivered=True))
        chosen = await found(subject, of(here, undelivered=True))
        await subject.fan_out((first, here, DeliveryStatus.PENDING))
        made = await subject.store.make(replay, chosen.events, to=chosen.last)
        assert made is not None
        assert [one.event_id for one in made if one.event_id in {first.id, second.id}] == [second.id]

    async def test_a_new_replay_is_seen_as_it_was_asked_for(self, subject: ReplaysUnderTest) -> None:
        here = await subject.subscribe()
        selection = of(
            here,
            own=Filter(frozenset({"a"}), frozenset({"x.*"}), "true"),
            libraries=frozenset({"a", "b"}),
            asked=Filter(frozenset({"b"}), frozenset({"x.y"})),
            undelivered=True,
        )
        replay = await started(subject, selection, max_per_second=0.5)
        assert (replay.selection, replay.stretch) == (selection, await everything(subject))
        assert (replay.subscription_id, replay.max_per_second) == (here, 0.5)
        assert (replay.is_active, replay.is_orphaned, replay.is_stopped) == (True, False, False)
        assert (replay.untried, replay.pending) == (0, 0)

    async def test_nothing_is_started_for_a_subscription_that_is_gone(self, subject: ReplaysUnderTest) -> None:
        stretch = await everything(subject)
        fields = {"matched": 0, "max_per_second": None, "now": subject.now, "at_most": 1}
        assert await subject.store.start(of("sub_gone"), stretch, **fields) is None  # type: ignore[arg-type]  # one dict of all kinds
        assert await unfinished(subject) == []

    async def test_a_subscription_has_only_so_many_under_way(self, subject: ReplaysUnderTest) -> None:
        here, there = await subject.subscribe(), await subject.subscribe()
        await subject.publish()
        first = await started(subject, of(here), at_most=1)
        with pytest.raises(Conflict):
            await started(subject, of(here), at_most=1)
        await started(subject, of(there), at_most=1)
        await subject.store.stop(first.id)
        await started(subject, of(here), at_most=1)

    async def test_deliveries_and_cursor_move_together(self, subject: ReplaysUnderTest) -> None:
        here = await subject.subscribe()
        events = await subject.publish(a_draft(id="a", library_id="books"), a_draft(id="b"), a_draft(id="c"))
        replay = await started(subject, of(here), matched=3, max_per_second=7)
        made = await subject.store.make(replay, events[:2], to=events[1].cursor)
        assert made is not None
        assert [(one.event_id, one.cursor, one.library_id) for one in made] == [
            ("a", events[0].cursor, "books"),
            ("b", events[1].cursor, "books"),
        ]
        assert {(one.endpoint_id, one.replay_id, one.replayed, one.replay_per_second) for one in made} == {
            (here, replay.id, True, 7)
        }
        assert made[0].body == events[0].body
        after = await seen(subject, replay.id)
        assert after.stretch is not None
        assert (after.stretch.after, after.untried, after.pending) == (events[1].cursor, 2, 2)
        assert await subject.progress(replay.id) == ("running", 2, {"pending": 2})

    async def test_one_that_was_moved_elsewhere_makes_nothing(self, subject: ReplaysUnderTest) -> None:
        here = await subject.subscribe()
        events = await subject.publish()
        replay = await started(subject, of(here))
        assert await subject.store.make(replay, events, to=events[0].cursor) is not None
        assert await subject.store.make(replay, events, to=events[0].cursor) is None
        assert (await subject.progress(replay.id))[1] == 1

    async def test_what_left_the_log_meanwhile_is_passed_over(self, subject: ReplaysUnderTest) -> None:
        here = await subject.subscribe()
        events = await subject.publish(a_draft(), a_draft())
        replay = await started(subject, of(here))
        await subject.drop(events[0].cursor)
        made = await subject.store.make(replay, events, to=events[1].cursor)
        assert made is not None
        assert [one.event_id for one in made] == [events[1].id]

    async def test_what_was_tried_is_told_apart_from_what_waits(self, subject: ReplaysUnderTest) -> None:
        here = await subject.subscribe()
        events = await subject.publish(*(a_draft() for _ in range(4)))
        replay = await started(subject, of(here))
        made = await subject.store.make(replay, events, to=events[-1].cursor)
        assert made is not None
        await subject.try_one(made[0], DeliveryStatus.DELIVERED)
        await subject.try_one(made[1], DeliveryStatus.DEAD)
        await subject.try_one(made[2], DeliveryStatus.PENDING)
        after = await seen(subject, replay.id)
        assert (after.untried, after.pending) == (1, 2)

    async def test_it_is_finished_once_all_is_made_and_none_is_pending(self, subject: ReplaysUnderTest) -> None:
        here = await subject.subscribe()
        events = await subject.publish(a_draft(), a_draft())
        replay = await started(subject, of(here))
        first = await subject.store.make(replay, events[:1], to=events[0].cursor)
        assert first is not None
        await subject.try_one(first[0], DeliveryStatus.DELIVERED)
        await subject.store.finish([replay.id])
        assert await unfinished(subject) == [replay.id]
        assert replay.stretch is not None
        second = await subject.store.make(await seen(subject, replay.id), events[1:], to=replay.stretch.last)
        assert second is not None
        await subject.store.finish([replay.id])
        assert await unfinished(subject) == [replay.id]
        await subject.try_one(second[0], DeliveryStatus.DEAD)
        await subject.store.finish([replay.id])
        assert await unfinished(subject) == []
        assert await subject.progress(replay.id) == ("finished", 2, {"delivered": 1, "dead": 1})

    async def test_a_stop_cancels_what_is_pending_and_nothing_more_is_made(self, subject: ReplaysUnderTest) -> None:
        here = await subject.subscribe()
        events = await subject.publish(*(a_draft() for _ in range(4)))
        replay = await started(subject, of(here))
        made = await subject.store.make(replay, events[:3], to=events[2].cursor)
        assert made is not None
        await subject.try_one(made[0], DeliveryStatus.DELIVERED)
        before = await seen(subject, replay.id)
        assert await subject.store.stop(replay.id) == frozenset({here})
        assert await subject.progress(replay.id) == ("stopped", 3, {"delivered": 1, "cancelled": 2})
        assert await subject.store.make(before, events[3:], to=events[3].cursor) is None
        assert await unfinished(subject) == []
        assert await subject.store.stop(replay.id) == frozenset()
        assert await subject.store.stop("rpl_unknown") is None

    async def test_a_stop_leaves_one_that_was_finished_what_it_was(self, subject: ReplaysUnderTest) -> None:
        replay = await started(subject, of(await subject.subscribe()))
        events = (await found(subject, of("sub_any"), limit=1)).events[:0]
        assert replay.stretch is not None
        await subject.store.make(replay, events, to=replay.stretch.last)
        await subject.store.finish([replay.id])
        assert await subject.store.stop(replay.id) == frozenset()
        assert (await subject.progress(replay.id))[0] == "finished"

    async def test_one_whose_subscription_is_gone_makes_nothing_and_ends_as_stopped(
        self, subject: ReplaysUnderTest
    ) -> None:
        here = await subject.subscribe()
        events = await subject.publish(a_draft(), a_draft())
        replay = await started(subject, of(here))
        made = await subject.store.make(replay, events[:1], to=events[0].cursor)
        assert made is not None
        before = await seen(subject, replay.id)
        await subject.delete(here)
        assert (await seen(subject, replay.id)).is_orphaned
        assert await subject.store.make(before, events[1:], to=events[1].cursor) is None
        await subject.store.finish([replay.id])
        assert await unfinished(subject) == [replay.id]
        await subject.try_one(made[0], DeliveryStatus.DEAD)
        await subject.store.finish([replay.id])
        assert (await subject.progress(replay.id))[0] == "stopped"

    async def test_a_pause_is_seen(self, subject: ReplaysUnderTest) -> None:
        here = await subject.subscribe()
        replay = await started(subject, of(here))
        await subject.pause(here)
        assert not (await seen(subject, replay.id)).is_active

    async def test_they_come_oldest_first(self, subject: ReplaysUnderTest) -> None:
        here = await subject.subscribe()
        replays = [(await started(subject, of(here))).id for _ in range(4)]
        assert await unfinished(subject) == replays

    async def test_where_the_fan_out_is_is_told(self, subject: ReplaysUnderTest) -> None:
        await subject.publish(a_draft(), a_draft())
        await subject.fan_out()
        head = (await everything(subject)).last
        assert (await subject.store.unfinished()).fanned_out == await subject.store.fanned_out() == head
