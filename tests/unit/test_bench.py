"""The arithmetic of `gateway bench`: figures out of repeats, ledgers that balance or do not, how events are counted."""

import asyncio
import math
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bench.figures import Figure, Reading, Spread, Usage, Value, measurement, percentile
from gateway.bench.ledger import Books, Ledger, account, account_by_count, account_of_books, numbers_in, numbers_of
from gateway.bench.marks import batch_json, event_json, marks_in
from gateway.bench.report import document, is_void, remarks
from gateway.bench.roles.framing import Messages, post, post_head, status_of
from gateway.bench.roles.readers import Crowd, Stream
from gateway.bench.stage import Published, compared
from gateway.bench.usage import cpu_seconds, family, most_resident_bytes, resident_bytes
from tests.fakes.clock import START

BALANCED = Ledger(published=10, delivered=9, dead=1)


def a_reading(
    value: float = 1.0, *, baseline: float | None = None, share: float = 0.5, ledger: Ledger = BALANCED
) -> Reading:
    return Reading(
        name="a backlog",
        values=(Value(name="settled", unit="deliveries/s", value=value, baseline=baseline),),
        usages=(
            Usage(name="gateway", is_load=False, cpu_seconds=2.0, seconds=2.0),
            Usage(name="receiver", is_load=True, cpu_seconds=share * 2, seconds=2.0),
        ),
        ledger=ledger,
    )


def test_a_figure_is_the_median_of_its_repeats_and_their_extremes() -> None:
    found = measurement("deliver", [a_reading(30.0), a_reading(10.0), a_reading(20.0)])
    [figure] = found.figures
    assert (figure.spread.low, figure.spread.median, figure.spread.high) == (10.0, 20.0, 30.0)
    assert figure.spread.values == (30.0, 10.0, 20.0)
    assert (figure.baseline, figure.ratio) == (None, None)


def test_a_ratio_is_that_of_the_medians() -> None:
    found = measurement(
        "deliver", [a_reading(30.0, baseline=2.0), a_reading(10.0, baseline=8.0), a_reading(20.0, baseline=4.0)]
    )
    assert found.figures[0].ratio == 5.0


def test_nothing_is_compared_to_a_baseline_of_nothing() -> None:
    zero = Spread(values=(0.0,))
    assert Figure(name="x", unit="y", spread=zero, baseline=zero).ratio is None


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1.0), (1, 1.0), (50, 50.0), (50.1, 51.0), (99, 99.0), (99.1, 100.0), (100, 100.0)]
)
def test_a_percentile_is_the_nearest_rank(percent: float, expected: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], percent) == expected


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 100))
def test_a_percentile_is_not_exceeded_by_so_many(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert sum(value <= found for value in values) >= math.ceil(len(values) * percent / 100)


@pytest.mark.parametrize(
    ("ledger", "missing", "balances"),
    [
        (Ledger(published=3, delivered=3), 0, True),
        (Ledger(published=3, delivered=2, dead=1), 0, True),
        (Ledger(published=3, delivered=1, dead=1, owed=1), 0, True),
        (Ledger(published=3, delivered=2), 1, False),
        (Ledger(published=3, delivered=3, dead=1), -1, False),
        (Ledger(published=3, delivered=3, strange=1), 0, False),
        (Ledger(published=3, delivered=3, again=1, refused=1), 0, True),
    ],
)
def test_a_ledger_balances_when_nothing_is_missing_and_nothing_strange(
    ledger: Ledger,
    missing: int,
    balances: bool,  # noqa: FBT001 - a table's column
) -> None:
    assert (ledger.missing, ledger.balances) == (missing, balances)


def test_ledgers_add_up() -> None:
    one = Ledger(published=1, delivered=2, dead=3, again=4, strange=5, refused=6, owed=7)
    assert one + one == Ledger(published=2, delivered=4, dead=6, again=8, strange=10, refused=12, owed=14)


def test_what_was_refused_may_have_come_and_what_nobody_published_may_not() -> None:
    accepted, refused = numbers_in([0, 1, 2], 10), numbers_in([3], 10)
    assert account(accepted=accepted, refused=refused, came=numbers_in([0, 2, 3], 10)) == Ledger(
        published=3, delivered=2, refused=1
    )
    assert account(accepted=accepted, refused=refused, came=numbers_in([0, 1, 2, 9], 10)) == Ledger(
        published=3, delivered=3, refused=1, strange=1
    )


def test_one_stream_that_got_too_much_does_not_make_up_for_one_that_got_too_little() -> None:
    ledger = account_by_count(accepted=5, refused=0, counts=[4, 6])
    assert (ledger.published, ledger.delivered, ledger.strange, ledger.balances) == (10, 9, 1, False)


def test_what_the_books_call_delivered_has_to_have_come_and_what_came_may_be_owed() -> None:
    books = [Books(delivered=2, dead=1, owed=1), Books(delivered=3, dead=0, owed=1)]
    came = [numbers_in([0, 1, 2], 4), numbers_in([0, 1], 4)]
    ledger = account_of_books(events=4, books=books, came=came, strange=0, again=0)
    assert (ledger.published, ledger.delivered, ledger.dead, ledger.owed) == (8, 4, 1, 2)
    assert (ledger.missing, ledger.balances) == (1, False)


@given(st.lists(st.integers(0, 3), max_size=200))
def test_numbers_are_the_places_of_what_came(flags: list[int]) -> None:
    numbers = numbers_of(flags)
    assert [place for place in range(len(flags) + 3) if numbers >> place & 1] == [
        place for place, flag in enumerate(flags) if flag
    ]


def test_one_repeat_that_does_not_balance_makes_all_of_them_void() -> None:
    short, long = Ledger(published=3, delivered=2), Ledger(published=3, delivered=3, dead=1)
    found = measurement("deliver", [a_reading(), a_reading(ledger=short), a_reading(ledger=long)])
    assert found.ledger.balances, "one makes up for the other, which must not count"
    assert found.is_void
    assert is_void([found])
    assert next(remarks(found)).startswith("VOID")
    assert document([found], repeats=3, started_at=START, load_average=0.0)["void"] is True


def test_a_load_generator_that_was_at_its_end_is_named() -> None:
    busy = measurement("deliver", [a_reading(share=0.95), a_reading(share=0.2), a_reading(share=0.97)])
    assert busy.bottlenecks == ("receiver",), "the gateway itself is what is measured"
    assert list(remarks(busy)) == ["The load generator was the bottleneck: receiver."]
    assert measurement("deliver", [a_reading(share=0.95), a_reading(share=0.2), a_reading(share=0.3)]).bottlenecks == ()


@pytest.mark.parametrize("size", [150, 270, 5_000])
def test_an_event_has_its_size_and_its_mark(size: int) -> None:
    event = event_json(7, 1234.5, "bench-0123456789ab", size)
    assert len(event) == size
    assert marks_in(event) == [(7, 1234.5)]
    assert marks_in(batch_json(3, 2, 1.5, "bench-0123456789ab", size)) == [(3, 1.5), (4, 1.5)]


@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(1, 40))
def test_messages_are_cut_out_however_they_come(bodies: list[bytes], piece: int) -> None:
    head = post_head("/v1/events", host="h", key="k")
    said = b"".join(post(head, body) for body in bodies)
    messages = Messages()
    found = [body for start in range(0, len(said), piece) for _, body in messages.feed(said[start : start + piece])]
    assert found == bodies


def test_a_message_without_a_length_has_no_body() -> None:
    [(head, body)] = Messages().feed(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert (status_of(head), body) == (204, b"")


def test_a_body_in_chunks_is_refused() -> None:
    with pytest.raises(ValueError, match="chunks"):
        list(Messages().feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))


@pytest.mark.parametrize("reading", [True, False])
@pytest.mark.parametrize("piece", [1, 7, 64, 10_000])
async def test_a_stream_counts_each_event_once_however_it_is_cut(piece: int, reading: bool) -> None:  # noqa: FBT001 - a table's column
    crowd = Crowd()
    stream = Stream(b"", b"begun", crowd)
    stream.numbers = bytearray(20) if reading else None
    said = b"begun\n\n" + b"".join(b"data: %b\n\n" % event_json(number, 0.0, "books", 200) for number in range(20))
    feed(crowd, stream, said[:7], 7)
    feed(crowd, stream, said[7:], piece)
    assert stream.count == 20
    assert stream.numbers == (bytearray([1] * 20) if reading else None)


def feed(crowd: Crowd, stream: Stream, said: bytes, piece: int) -> None:
    for start in range(0, len(said), piece):
        part = said[start : start + piece]
        crowd.buffer[: len(part)] = part
        stream.buffer_updated(len(part))


async def test_a_crowd_is_complete_when_what_was_accepted_has_come() -> None:
    crowd = Crowd()
    stream = Stream(b"", b"begun", crowd)
    crowd.streams = [stream]
    feed(crowd, stream, b"begun\n", 6)
    await crowd.expect(events=3, reading=1)
    report = asyncio.create_task(crowd.report(refused=1, patience=60))
    for number in (0, 2):
        feed(crowd, stream, b"data: %b\n\n" % event_json(number, 0.0, "books", 200), 50)
    found = await report
    assert (found["came"], found["counts"], found["again"]) == ([f"{0b101:x}"], [], 0)


async def test_a_stream_that_comes_back_may_have_its_first_events_with_its_beginning() -> None:
    crowd = Crowd()
    await crowd.expect(events=2, reading=1, streams=2)
    crowd.streams = [Stream(b"", b"\nid: ", crowd, place=place) for place in range(2)]
    frames = b"".join(b"id: x-%d\ndata: %b\n\n" % (n, event_json(n, 0.0, "books", 200)) for n in range(2))
    for stream in crowd.streams:
        crowd.assign(stream)
        feed(crowd, stream, b"retry: 3000\n\n" + frames, 100_000)
    found = await crowd.report(refused=0, patience=5)
    assert (found["came"], found["counts"]) == ([f"{0b11:x}"], [2])


async def test_where_each_event_is_for_one_stream_another_that_gets_it_is_strange() -> None:
    crowd = Crowd()
    crowd.streams = [Stream(b"", b"begun", crowd, place=place) for place in range(2)]
    await crowd.expect(events=4, reading=2, spread=True)
    for stream, numbers in zip(crowd.streams, ([0, 2], [1, 2]), strict=True):
        feed(crowd, stream, b"begun\n", 6)
        feed(crowd, stream, b"".join(b"data: %b\n\n" % event_json(n, 0.0, "books", 200) for n in numbers), 100)
    found = await crowd.report(refused=0, patience=5)
    assert (found["came"], found["counts"], found["strange"]) == ([f"{0b0111:x}"], [], 1)


def test_figures_are_compared_by_their_names_and_what_was_lost_there_counts() -> None:
    lost = Ledger(published=1, delivered=0)
    found = compared(a_reading(30.0), a_reading(10.0, ledger=lost))
    assert [value.baseline for value in found.values] == [10.0]
    assert [usage.name for usage in found.usages[2:]] == ["gateway (baseline)", "receiver (baseline)"]
    assert (found.ledger, found.ledger.balances) == (BALANCED + lost, False)


def test_what_was_there_before_is_published_whole() -> None:
    assert Published.before(3).accepted == numbers_in([0, 1, 2], 3)


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_a_process_is_looked_at_with_its_children() -> None:
    alone = resident_bytes(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert {os.getpid(), child.pid} <= set(family(os.getpid()))
        together, its_own = resident_bytes(os.getpid()), resident_bytes(child.pid)
        assert alone is not None
        assert together is not None
        assert its_own is not None
        assert its_own < together
        assert cpu_seconds(os.getpid()) is not None
        assert (most_resident_bytes(os.getpid()) or 0) >= alone
        child.stdin.close()
    assert child.pid not in family(os.getpid())
    assert cpu_seconds(child.pid) is None
    assert resident_bytes(child.pid) is None
