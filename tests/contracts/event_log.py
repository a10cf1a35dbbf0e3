"""What every EventLog promises. An adapter passes by subclassing `EventLogContract` with a `subject` fixture."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from gateway.events import Cursor, LoggedEvent, Page
from gateway.filters import Filter
from gateway.ports.log import EventLog, HistoryQuery, IdTaken, Receipt
from tests.builders import NOON, HandClock, a_draft

EVERYTHING = Filter()


@dataclass(slots=True, kw_only=True)
class LogUnderTest:
    """An empty log with what a test needs around it."""

    log: EventLog
    clock: HandClock
    """The log's only idea of time."""
    announced: list[Page] = field(default_factory=list)
    """What its bus was told, in order."""
    drop: Callable[[Cursor], Awaitable[None]]
    """Does what retention does: forgets the events up to and including this place."""


class EventLogContract:
    async def test_an_empty_log_stands_at_zero(self, subject: LogUnderTest) -> None:
        position = await subject.log.position()
        assert (position.head, position.earliest) == (0, 1)
        assert (await subject.log.read(Cursor(0))).events == ()
        assert await subject.log.dropped_until() is None

    async def test_cursors_count_from_one_across_batches(self, subject: LogUnderTest) -> None:
        answers = await subject.log.append([[a_draft(), a_draft()], [a_draft()]])
        answers += await subject.log.append([[a_draft()]])
        assert [[receipt.cursor for receipt in taken(answer)] for answer in answers] == [[1, 2], [3], [4]]
        assert (await subject.log.position()).head == 4

    async def test_what_was_appended_is_read_as_it_was_drafted(self, subject: LogUnderTest) -> None:
        draft = a_draft(
            id="own:1",
            type="search.performed",
            library_id="L.1",
            data=rb'{"n":12345678901234567890123,"s":"\ud800","f":1.00}',
            timestamp=NOON - timedelta(days=1, microseconds=1),
            traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        )
        await subject.log.append([[draft]])
        event = await subject.log.get("own:1")
        assert event is not None
        assert (event.cursor, event.id, event.type, event.library_id) == (1, draft.id, draft.type, draft.library_id)
        assert (event.timestamp, event.accepted_at) == (draft.timestamp, NOON)
        assert (event.data, event.traceparent, event.audience) == (draft.data, draft.traceparent, None)
        (read,) = (await subject.log.read(Cursor(0))).events
        assert read.body == event.body

    async def test_the_audience_of_an_event_is_kept(self, subject: LogUnderTest) -> None:
        audiences = [None, frozenset[str](), frozenset({"a", "b"})]
        await subject.log.append([[a_draft(audience=audience) for audience in audiences]])
        assert [event.audience for event in (await subject.log.read(Cursor(0))).events] == audiences

    async def test_an_event_without_a_time_happened_when_it_was_accepted(self, subject: LogUnderTest) -> None:
        await subject.log.append([[a_draft()]])
        (event,) = (await subject.log.read(Cursor(0))).events
        assert event.timestamp == event.accepted_at == NOON

    # --- ids ---------------------------------------------------------------------------------------------------------

    async def test_appending_the_same_again_answers_the_stored_events_receipt(self, subject: LogUnderTest) -> None:
        first = a_draft(id="a", data=b'{"n":1,"m":{}}', timestamp=NOON)
        again = a_draft(id="a", data=b'{"m":{},"n":1.0}')
        await subject.log.append([[a_draft(), first]])
        subject.clock.advance(seconds=5)
        (answer,) = await subject.log.append([[again]])
        assert answer == (Receipt("a", Cursor(2), duplicate=True),)
        stored = await subject.log.get("a")
        assert stored is not None
        assert (stored.data, stored.accepted_at) == (first.data, NOON)
        assert (await subject.log.position()).head == 2

    async def test_an_id_with_other_content_is_taken(self, subject: LogUnderTest) -> None:
        await subject.log.append([[a_draft(id="a", data=b'{"n":1}', timestamp=NOON)]])
        for other in (
            a_draft(id="a", data=b'{"n":true}'),
            a_draft(id="a", data=b'{"n":1}', type="other"),
            a_draft(id="a", data=b'{"n":1}', library_id="other"),
            a_draft(id="a", data=b'{"n":1}', timestamp=NOON + timedelta(microseconds=1)),
        ):
            assert await subject.log.append([[a_draft(), other]]) == [IdTaken(1, "a")]
        assert (await subject.log.position()).head == 1

    async def test_a_refused_batch_leaves_nothing_and_harms_no_other(self, subject: LogUnderTest) -> None:
        await subject.log.append([[a_draft(id="taken")]])
        answers = await subject.log.append(
            [
                [a_draft(id="before")],
                [a_draft(id="lost"), a_draft(id="taken", type="other")],
                [a_draft(id="after"), a_draft(id="lost", type="now.its.own")],
            ]
        )
        assert answers[1] == IdTaken(1, "taken")
        assert [receipt.cursor for receipt in (*taken(answers[0]), *taken(answers[2]))] == [2, 3, 4]
        assert [event.id for event in (await subject.log.read(Cursor(1))).events] == ["before", "after", "lost"]

    async def test_the_same_twice_in_one_batch_is_stored_once(self, subject: LogUnderTest) -> None:
        (answer,) = await subject.log.append([[a_draft(id="a"), a_draft(), a_draft(id="a")]])
        assert [(receipt.cursor, receipt.duplicate) for receipt in taken(answer)] == [(1, False), (2, False), (1, True)]

    async def test_another_of_the_same_id_in_one_batch_refuses_the_batch(self, subject: LogUnderTest) -> None:
        assert await subject.log.append([[a_draft(id="a"), a_draft(id="a", type="b")]]) == [IdTaken(1, "a")]
        assert await subject.log.get("a") is None

    async def test_the_same_in_two_batches_at_once_is_stored_once(self, subject: LogUnderTest) -> None:
        first, second = await subject.log.append([[a_draft(id="a")], [a_draft(id="a")]])
        assert [taken(first)[0].duplicate, taken(second)[0].duplicate] == [False, True]
        assert taken(first)[0].cursor == taken(second)[0].cursor == 1

    async def test_an_id_is_free_again_when_its_event_has_left_the_log(self, subject: LogUnderTest) -> None:
        await subject.log.append([[a_draft(id="a"), a_draft(id="b")]])
        await subject.drop(Cursor(1))
        assert await subject.log.get("a") is None
        (answer,) = await subject.log.append([[a_draft(id="a", type="other")]])
        assert answer == (Receipt("a", Cursor(3), duplicate=False),)

    # --- time --------------------------------------------------------------------------------------------------------

    async def test_acceptance_never_runs_backwards(self, subject: LogUnderTest) -> None:
        await subject.log.append([[a_draft()]])
        subject.clock.advance(seconds=-60)
        await subject.log.append([[a_draft()]])
        subject.clock.advance(seconds=61)
        await subject.log.append([[a_draft()]])
        times = [event.accepted_at for event in (await subject.log.read(Cursor(0))).events]
        assert times == [NOON, NOON, NOON + timedelta(seconds=1)]

    async def test_before_finds_the_place_just_before_a_moment(self, subject: LogUnderTest) -> None:
        assert await subject.log.before(NOON) == 0
        for _ in range(3):  # 1 and 2 at noon, 3 and 4 ten seconds later, 5 and 6 another ten
            await subject.log.append([[a_draft(), a_draft()]])
            subject.clock.advance(seconds=10)
        places = {
            seconds: await subject.log.before(NOON + timedelta(seconds=seconds)) for seconds in (-1, 0, 1, 10, 21)
        }
        assert places == {-1: 0, 0: 0, 1: 2, 10: 2, 21: 6}
        await subject.drop(Cursor(3))
        assert await subject.log.before(NOON) == 3

    # --- reading -----------------------------------------------------------------------------------------------------

    async def test_a_page_holds_at_most_what_was_asked_for(self, subject: LogUnderTest) -> None:
        await subject.log.append([[a_draft() for _ in range(5)]])
        page = await subject.log.read(Cursor(1), limit=2)
        assert (page.after, [event.cursor for event in page.events], page.last) == (1, [2, 3], 3)
        assert [event.cursor for event in (await subject.log.read(Cursor(3), limit=9)).events] == [4, 5]
        assert (await subject.log.read(Cursor(5))).events == ()

    async def test_a_page_is_cut_by_size_but_never_empty(self, subject: LogUnderTest) -> None:
        big = b'{"s":"' + b"x" * 10_000 + b'"}'
        await subject.log.append([[a_draft(data=big) for _ in range(10)]])
        assert len((await subject.log.read(Cursor(0), max_bytes=1)).events) == 1
        assert 2 <= len((await subject.log.read(Cursor(0), max_bytes=35_000)).events) <= 4
        assert len((await subject.log.read(Cursor(0))).events) == 10

    async def test_what_retention_dropped_is_passed_over(self, subject: LogUnderTest) -> None:
        await subject.log.append([[a_draft(), a_draft()]])
        subject.clock.advance(seconds=10)
        await subject.log.append([[a_draft(), a_draft()]])
        await subject.drop(Cursor(2))
        position = await subject.log.position()
        assert (position.head, position.earliest) == (4, 3)
        assert await subject.log.dropped_until() == NOON
        page = await subject.log.read(Cursor(0))
        assert (page.after, [event.cursor for event in page.events]) == (0, [3, 4])

    async def test_a_log_that_was_emptied_remembers_where_it_was(self, subject: LogUnderTest) -> None:
        await subject.log.append([[a_draft(), a_draft()]])
        await subject.drop(Cursor(2))
        position = await subject.log.position()
        assert (position.head, position.earliest) == (2, 3)
        assert await subject.log.before(NOON) == 2
        (answer,) = await subject.log.append([[a_draft()]])
        assert taken(answer)[0].cursor == 3

    async def test_an_unknown_id_is_no_event(self, subject: LogUnderTest) -> None:
        assert await subject.log.get("nobody") is None

    # --- announcing --------------------------------------------------------------------------------------------------

    async def test_what_is_new_is_announced_once_it_can_be_read_and_in_order(self, subject: LogUnderTest) -> None:
        await subject.log.append([[a_draft(id="a")], [a_draft(id="b")]])
        await subject.log.append([[a_draft(id="a"), a_draft(id="c")]])
        await subject.log.append([[a_draft(id="a"), a_draft(id="b")]])
        await subject.log.append([[a_draft(id="a", type="other")]])
        events = [event for page in subject.announced for event in page.events]
        assert [(event.cursor, event.id) for event in events] == [(1, "a"), (2, "b"), (3, "c")]
        assert all(page.events for page in subject.announced)
        ends = [0, *(page.last for page in subject.announced)]
        assert [page.after for page in subject.announced] == ends[:-1]

    # --- history -----------------------------------------------------------------------------------------------------

    async def test_history_is_newest_first_unless_asked_otherwise(self, subject: LogUnderTest) -> None:
        await subject.log.append([[a_draft() for _ in range(3)]])
        assert await cursors(subject) == [3, 2, 1]
        assert await cursors(subject, order="asc") == [1, 2, 3]

    async def test_history_goes_on_where_the_page_before_ended(self, subject: LogUnderTest) -> None:
        await subject.log.append([[a_draft() for _ in range(5)]])
        for order, expected in (("desc", [[5, 4], [3, 2], [1]]), ("asc", [[1, 2], [3, 4], [5]])):
            pages: list[list[int]] = []
            resume = None
            while True:
                page = await subject.log.history(
                    HistoryQuery(
                        filter=EVERYTHING,
                        libraries=None,
                        order="asc" if order == "asc" else "desc",
                        limit=2,
                        resume=resume,
                    )
                )
                pages.append([event.cursor for event in page.rows])
                if (resume := page.more) is None:
                    break
            assert pages == expected

    async def test_pages_of_history_stay_put_while_events_are_added(self, subject: LogUnderTest) -> None:
        await subject.log.append([[a_draft() for _ in range(4)]])
        first = await subject.log.history(HistoryQuery(filter=EVERYTHING, libraries=None, limit=2))
        await subject.log.append([[a_draft() for _ in range(4)]])
        assert await cursors(subject, resume=first.more) == [2, 1]

    async def test_a_full_last_page_of_history_is_the_last(self, subject: LogUnderTest) -> None:
        await subject.log.append([[a_draft() for _ in range(2)]])
        page = await subject.log.history(HistoryQuery(filter=EVERYTHING, libraries=None, limit=2))
        assert (len(page.rows), page.more) == (2, None)

    async def test_history_lies_between_since_and_until(self, subject: LogUnderTest) -> None:
        for _ in range(4):
            await subject.log.append([[a_draft()]])
            subject.clock.advance(seconds=10)
        ten, thirty = NOON + timedelta(seconds=10), NOON + timedelta(seconds=30)
        assert await cursors(subject, since=ten) == [4, 3, 2]
        assert await cursors(subject, until=thirty) == [3, 2, 1]
        assert await cursors(subject, since=ten, until=thirty, order="asc") == [2, 3]
        assert await cursors(subject, since=thirty, until=ten) == []
        assert await cursors(subject, since=thirty + timedelta(hours=1)) == []

    async def test_history_after_a_place_lies_beyond_it_in_either_order(self, subject: LogUnderTest) -> None:
        await subject.log.append([[a_draft() for _ in range(4)]])
        await subject.drop(Cursor(1))
        assert await cursors(subject, after=Cursor(2)) == [4, 3]
        assert await cursors(subject, after=Cursor(2), order="asc") == [3, 4]
        assert await cursors(subject, after=Cursor(1)) == [4, 3, 2]
        assert await cursors(subject, after=Cursor(4)) == []

    async def test_history_knows_libraries(self, subject: LogUnderTest) -> None:
        await subject.log.append([[a_draft(library_id=library) for library in ("a", "b", "c", "a")]])
        assert await cursors(subject, filter_=Filter.parse(library_ids=["a", "c"])) == [4, 3, 1]
        assert await cursors(subject, libraries=frozenset({"a", "b"})) == [4, 2, 1]
        assert await cursors(
            subject, filter_=Filter.parse(library_ids=["a", "c"]), libraries=frozenset({"b", "c"})
        ) == [3]
        assert await cursors(subject, libraries=frozenset()) == []

    async def test_history_knows_types_and_branches(self, subject: LogUnderTest) -> None:
        names = ("document.added", "document", "document.page.added", "documents.added", "document_x", "a")
        await subject.log.append([[a_draft(type=name) for name in names]])
        assert await cursors(subject, filter_=Filter.parse(types=["document.*"])) == [3, 1]
        assert await cursors(subject, filter_=Filter.parse(types=["document", "a"])) == [6, 2]
        assert await cursors(subject, filter_=Filter.parse(types=["document.page.*", "document_x"])) == [5, 3]
        assert await cursors(subject, filter_=Filter.parse(types=["*", "a"])) == [6, 5, 4, 3, 2, 1]

    async def test_history_knows_expressions(self, subject: LogUnderTest) -> None:
        await subject.log.append([[a_draft(data=b'{"n":%d}' % number) for number in range(5)]])
        urgent = Filter.parse(expression="event.data.n >= 2", types=["document.*"])
        assert await cursors(subject, filter_=urgent, limit=2) == [5, 4]
        assert await cursors(subject, filter_=urgent, limit=2, resume=Cursor(4)) == [3]

    async def test_history_shows_the_gateways_own_events_to_those_who_ask_and_may(self, subject: LogUnderTest) -> None:
        await subject.log.append(
            [
                [
                    a_draft(),
                    a_draft(type="gateway.ping", library_id="gateway"),
                    a_draft(type="gateway.delivery.dead", library_id="gateway", audience=frozenset({"books"})),
                    a_draft(type="gateway.delivery.dead", library_id="gateway", audience=frozenset({"books", "films"})),
                ]
            ]
        )
        own, dead = Filter.parse(types=["gateway.*"]), Filter.parse(types=["gateway.delivery.dead", "*"])
        assert await cursors(subject) == [1]
        assert await cursors(subject, filter_=own) == [4, 3, 2]
        assert await cursors(subject, filter_=dead) == [4, 3, 1]
        assert await cursors(subject, filter_=own, libraries=frozenset({"books"})) == [3]
        assert await cursors(subject, filter_=dead, libraries=frozenset({"books", "films"})) == [4, 3, 1]
        named = Filter.parse(library_ids=["books"], types=["gateway.*", "*"])
        assert await cursors(subject, filter_=named) == [1]

    async def test_no_page_of_history_examines_more_than_its_limit(self, subject: LogUnderTest) -> None:
        """A narrow filter answers a short page with a place to go on, and is never stuck there."""
        await subject.log.append([[a_draft(type="wanted")]])
        for _ in range(3):
            await subject.log.append([[a_draft(data=b'{"s":1}') for _ in range(4_000)]])
        narrow = Filter.parse(expression="!has(event.data.s)")
        first = await subject.log.history(HistoryQuery(filter=narrow, libraries=None))
        assert first.rows == ()
        assert first.more is not None
        assert first.more <= 12_001 - 10_000 + 1
        second = await subject.log.history(HistoryQuery(filter=narrow, libraries=None, resume=first.more))
        assert [event.cursor for event in second.rows] == [1]
        assert second.more is None

    async def test_no_page_of_history_is_larger_than_its_limit(self, subject: LogUnderTest) -> None:
        big = b'{"s":"' + b"x" * 200_000 + b'"}'
        for _ in range(5):
            await subject.log.append([[a_draft(data=big) for _ in range(12)]])
        seen: list[LoggedEvent] = []
        resume = None
        pages = 0
        while pages == 0 or resume is not None:
            page = await subject.log.history(HistoryQuery(filter=EVERYTHING, libraries=None, limit=500, resume=resume))
            assert sum(len(event.data) for event in page.rows) < 8 * 2**20 + len(big)
            seen += page.rows
            resume = page.more
            pages += 1
        assert [event.cursor for event in seen] == list(range(60, 0, -1))
        assert pages == 2


async def cursors(
    subject: LogUnderTest,
    *,
    filter_: Filter = EVERYTHING,
    libraries: frozenset[str] | None = None,
    **rest: Any,
) -> list[int]:
    page = await subject.log.history(HistoryQuery(filter=filter_, libraries=libraries, **rest))
    return [event.cursor for event in page.rows]


def taken(answer: Sequence[Receipt] | IdTaken) -> Sequence[Receipt]:
    assert not isinstance(answer, IdTaken)
    return answer
