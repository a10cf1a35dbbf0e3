"""From any place in the log to its head and along with it: nothing lost, nothing twice, whatever happens meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.bus.memory import MemoryBus
from gateway.errors import Overloaded, StorageUnavailable, Unauthenticated
from gateway.events import Cursor, Page, Position
from gateway.filters import Candidate, Filter, Matcher
from gateway.filters.narrowing import narrowed
from gateway.http.frames import SseEncoding
from gateway.http.messages import SocketEncoding
from gateway.storage.memory import MemoryEventLog
from gateway.streams.hub import Hub, Sheet
from gateway.streams.past import BLOCK_EVENTS
from gateway.streams.sinks import End, Reader, StreamEncoding
from gateway.streams.starting import LastEventId, Since
from gateway.streams.stream import OPENING_SECONDS, State, Stream
from gateway.streams.streaming import KEY_REVOKED, Streams, Wish
from gateway.tail import Tail
from tests.builders import NOON, HandClock, a_draft, a_page, an_event
from tests.until import until
from tests.whatwg import Source, interpret

EPOCH = "k3v9"


class ScriptedLog(MemoryEventLog):
    """Counts its reads; fails, or waits, when told to."""

    def __init__(self, bus: MemoryBus | None, clock: HandClock) -> None:
        super().__init__(bus, epoch=EPOCH, clock=clock)
        self.reads = self.positions = 0
        self.fails = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, after: Cursor, *, limit: int = 1000, max_bytes: int = 2**20) -> Page:
        self.reads += 1
        if self.fails:
            raise OSError("the disk is away")
        page = await super().read(after, limit=limit, max_bytes=max_bytes)
        await self.gate.wait()
        return page

    async def position(self) -> Position:
        self.positions += 1
        if self.fails:
            raise OSError("the disk is away")
        return await super().position()


class Paper:
    """A sink that keeps what is written to it, and is busy when told to."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._sheets: list[Sheet] = []
        self.is_busy = False
        self.ended = self.aborted = False
        self.why: End | None = None
        self.room: int | None = None
        """Bytes it takes before it is busy; None: any number."""

    def write(self, sheet: Sheet) -> None:
        assert not self.ended
        self._sheets.append(sheet)
        if self.room is not None and not self.is_busy:
            self.room -= sheet.size
            if self.room <= 0:
                self.is_busy = True
                self.reader.became_busy()

    def drain(self, room: int | None = None) -> None:
        self.room = room
        if self.is_busy:
            self.is_busy = False
            self.reader.became_ready()

    def end(self, sheet: Sheet, why: End) -> None:
        self.write(sheet)
        self.ended = True
        self.why = why

    def cut_off(self, why: End) -> None:
        self.aborted = True

    @property
    def written(self) -> bytes:
        return b"".join(sheet.text for sheet in self._sheets)

    @property
    def source(self) -> Source:
        return interpret(self.written)

    @property
    def places(self) -> list[int]:
        """The cursors of the events that came."""
        return [int(event.last_event_id.split("-")[1]) for event in self.source.events]


class World:
    def __init__(self, *, max_streams: int = 10_000, ring_bytes: int | None = None, announces: bool = True) -> None:
        self.clock = HandClock()
        self.seconds = 0.0
        self.bus = MemoryBus()
        self.log = ScriptedLog(self.bus if announces else None, self.clock)
        self.tail = Tail(self.log, self.bus, look_every_seconds=3_600)
        self.streams = Streams(
            log=self.log,
            tail=self.tail,
            hub=None if ring_bytes is None else Hub(self.tail.write, ring_bytes=ring_bytes),
            max_streams=max_streams,
            heartbeat_seconds=3_600,
            clock=self.clock,
            monotonic=lambda: self.seconds,
        )

    async def publish(self, count: int, **kwargs: Any) -> None:
        await self.log.append([[a_draft(**kwargs) for _ in range(count)]])

    async def settle(self) -> None:
        head = (await self.log.position()).head
        await until(lambda: self.streams.hub.cursor == head)

    def wish(
        self,
        *,
        start: LastEventId | Since | None = None,
        key_id: str = "key_1",
        encoding: StreamEncoding = SseEncoding(),  # noqa: B008 - a value
        **words: Any,
    ) -> Wish:
        return Wish(filter=Filter.parse(**words), libraries=None, encoding=encoding, key_id=key_id, start=start)

    async def open(self, after: int | None = None, *, room: int | None = None, **words: Any) -> tuple[Stream, Paper]:
        start = None if after is None else LastEventId(f"{EPOCH}-{after}")
        opening = await self.streams.open(self.wish(start=start, **words))
        paper = Paper(opening.stream)
        paper.room = room
        return opening.begin(paper), paper


def is_live(stream: Stream) -> bool:
    return stream.state is State.LIVE


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    async with world.tail, world.streams:
        yield world


@pytest.fixture
async def forgetful() -> AsyncIterator[World]:
    """A ring of a page or two: who comes back has to read the log."""
    world = World(ring_bytes=1)
    async with world.tail, world.streams:
        yield world


# --- the seam --------------------------------------------------------------------------------------------------------


async def test_who_comes_back_within_the_ring_asks_nothing_of_the_log(world: World) -> None:
    await world.publish(100)
    await world.settle()
    stream, paper = await world.open(after=40)
    assert stream.state is State.LIVE
    assert paper.places == list(range(41, 101))
    assert world.log.reads == 0


async def test_who_comes_back_from_before_the_ring_reads_the_log_and_then_lives(forgetful: World) -> None:
    for _ in range(40):
        await forgetful.publish(50)
    await forgetful.settle()
    stream, paper = await forgetful.open(after=7)
    await until(lambda: stream.state is State.LIVE)
    await forgetful.publish(3)
    await forgetful.settle()
    assert paper.places == list(range(8, 2_004))


async def test_an_event_that_lands_during_the_last_read_is_not_lost(forgetful: World) -> None:
    for _ in range(3):
        await forgetful.publish(10)
    await forgetful.settle()
    forgetful.log.gate.clear()
    stream, paper = await forgetful.open(after=0)
    await until(lambda: forgetful.log.reads == 1)
    for _ in range(5):
        await forgetful.publish(1)
    await forgetful.settle()
    forgetful.log.gate.set()
    await until(lambda: stream.state is State.LIVE)
    assert paper.places == list(range(1, 36))


async def test_a_place_that_the_hub_has_not_reached_is_waited_for() -> None:
    world = World(announces=False)
    async with world.tail, world.streams:
        await world.publish(5)
        stream, paper = await world.open(after=3)
        assert (stream.state, paper.places) == (State.BEHIND, [])
        world.bus.announce(await world.log.read(Cursor(0), limit=2))
        await until(lambda: world.streams.hub.cursor == 2)
        world.bus.announce(await world.log.read(Cursor(2)))
        await until(lambda: stream.state is State.LIVE)
        assert paper.places == [4, 5]


async def test_a_narrow_filter_goes_through_a_long_ring_in_turns_of_the_loop(world: World) -> None:
    for _ in range(100):
        await world.publish(1)
        await world.settle()
    await world.publish(1, type="custom")
    await world.settle()
    stream, paper = await world.open(after=0, types=["custom"])
    assert stream.state is State.BEHIND
    await until(lambda: stream.state is State.LIVE)
    assert paper.places == [101]


async def test_readers_that_come_back_together_share_their_reads(forgetful: World) -> None:
    for _ in range(20):
        await forgetful.publish(BLOCK_EVENTS // 4)
    await forgetful.settle()
    total = BLOCK_EVENTS * 5
    opened = await asyncio.gather(*(forgetful.open(after=place) for place in range(200)))
    await until(lambda: all(stream.state is State.LIVE for stream, _ in opened))
    assert forgetful.log.reads < 20
    for place, (_, paper) in enumerate(opened):
        assert paper.written.count(b"\ndata: ") == total - place
    assert opened[199][1].places == list(range(200, total + 1))


async def test_a_storm_of_readers_that_come_back_asks_the_log_a_few_questions_in_all(forgetful: World) -> None:
    """Two thousand, by either way and by several filters, for the same thousand events."""
    for _ in range(10):
        await forgetful.publish(100)
    await forgetful.settle()
    wishes = [
        forgetful.wish(start=LastEventId(f"{EPOCH}-0"), encoding=encoding, types=types)
        for encoding in (SseEncoding(), SocketEncoding())
        for types in (None, ["document.*"])
        for _ in range(500)
    ]
    openings = await asyncio.gather(*(forgetful.streams.open(wish) for wish in wishes))
    papers = [Paper(opening.stream) for opening in openings]
    for opening, paper in zip(openings, papers, strict=True):
        opening.begin(paper)
    await until(lambda: all(opening.stream.state is State.LIVE for opening in openings))
    assert forgetful.log.reads <= 8
    assert forgetful.log.positions <= 2 + 1  # the tail's own among them
    assert {paper.written.count(b"evt_") for paper in papers} == {1_000}


async def test_who_stops_waiting_for_a_page_does_not_take_it_from_the_others(forgetful: World) -> None:
    await forgetful.publish(10)
    forgetful.log.gate.clear()
    leaving, staying = [asyncio.create_task(forgetful.streams._past.read(Cursor(0))) for _ in range(2)]
    await until(lambda: forgetful.log.reads == 1)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    forgetful.log.gate.set()
    leaf = await staying
    assert leaf is not None
    assert (leaf.last, forgetful.log.reads) == (10, 1)


async def test_a_reader_that_goes_does_not_take_the_page_from_the_others(forgetful: World) -> None:
    for _ in range(3):
        await forgetful.publish(10)
    await forgetful.settle()
    forgetful.log.gate.clear()
    (leaving, _), (staying, paper) = [await forgetful.open(after=0) for _ in range(2)]
    await until(lambda: forgetful.log.reads == 1)
    leaving.went_away()
    forgetful.log.gate.set()
    await until(lambda: staying.state is State.LIVE)
    assert (paper.places, forgetful.log.reads) == (list(range(1, 31)), 1)


async def test_a_read_that_ended_before_a_reader_came_says_nothing_of_what_was_published_since(
    forgetful: World,
) -> None:
    await forgetful.publish(BLOCK_EVENTS)
    await forgetful.settle()
    past = forgetful.streams._past
    forgetful.log.gate.clear()
    early = asyncio.create_task(past.read(Cursor(BLOCK_EVENTS)))
    await until(lambda: forgetful.log.reads == 1)  # it has found the end of the log, and has yet to say so
    await forgetful.publish(1)
    late = asyncio.create_task(past.read(Cursor(BLOCK_EVENTS)))
    await asyncio.sleep(0)
    forgetful.log.gate.set()
    assert await early is None
    found = await late
    assert found is not None
    assert found.last == BLOCK_EVENTS + 1


async def test_what_retention_drops_while_a_reader_is_on_its_way_is_told(forgetful: World) -> None:
    for _ in range(4):
        await forgetful.publish(BLOCK_EVENTS)
    await forgetful.settle()
    stream, paper = await forgetful.open(after=0, room=1_000)
    await until(lambda: paper.is_busy)
    before = paper.places[-1]
    forgetful.log.drop(Cursor(BLOCK_EVENTS * 2 + 100))
    forgetful.streams._past._cached.clear()
    paper.drain()
    await until(lambda: stream.state is State.LIVE)
    gaps = [event for event in paper.source.events if event.type == "gateway.gap"]
    earliest = BLOCK_EVENTS * 2 + 101
    assert [gap.data for gap in gaps] == [f'{{"requested": "{EPOCH}-{before}", "earliest": "{EPOCH}-{earliest}"}}']
    expected = [*range(1, before + 1), earliest - 1, *range(earliest, BLOCK_EVENTS * 4 + 1)]
    assert paper.places == expected


async def test_a_log_that_holds_nothing_any_more_is_a_gap_up_to_the_ring(forgetful: World) -> None:
    for _ in range(4):
        await forgetful.publish(10)
    await forgetful.settle()
    forgetful.log.gate.clear()
    stream, paper = await forgetful.open(after=0)
    forgetful.log.drop(Cursor(40))
    forgetful.log.gate.set()
    await until(lambda: stream.state is State.LIVE)
    assert paper.source.events[0].type == "gateway.gap"
    assert paper.places == [30, *range(31, 41)]


# --- busy readers ----------------------------------------------------------------------------------------------------


async def test_a_busy_reader_is_left_alone_and_goes_on_where_it_was(world: World) -> None:
    stream, paper = await world.open(room=400)
    _, other = await world.open()
    for _ in range(20):
        await world.publish(1)
    await world.settle()
    assert not is_live(stream)
    taken = paper.places
    assert taken == list(range(1, len(taken) + 1))
    assert len(taken) < 10
    assert other.places == list(range(1, 21))
    assert stream.lag_bytes > 0
    lag = stream.lag_bytes
    paper.drain(room=400)
    assert len(taken) < len(paper.places) <= 2 * len(taken) + 1
    assert 0 < stream.lag_bytes < lag
    while not is_live(stream):
        paper.drain(room=400)
    assert paper.places == list(range(1, 21))
    assert stream.lag_bytes == 0


async def test_a_heartbeat_spares_the_busy_and_those_that_have_yet_to_begin(world: World) -> None:
    opening = await world.streams.open(world.wish())
    _, paper = await world.open(room=1)
    assert paper.is_busy
    before = paper.written
    for stream in world.streams.all():
        stream.beat()
    assert paper.written == before
    opening.abandon()


FILTERS: list[dict[str, Any]] = [
    {},
    {"types": ["document.*"]},
    {"types": ["custom"], "library_ids": ["a", "b"]},
    {"library_ids": ["c"]},
    {"expression": "event.data.n % 7 == 0"},
]


async def publish_at_random(world: World, rand: random.Random) -> None:
    for _ in range(20):
        drafts = [
            a_draft(
                type=rand.choice(["document.added", "custom"]),
                library_id=rand.choice("abc"),
                data=b'{"n":%d,"x":"%b"}' % (rand.randrange(100), b"x" * rand.randrange(300)),
            )
            for _ in range(rand.randrange(1, 30))
        ]
        await world.log.append([drafts])
        for _ in range(rand.randrange(4)):
            await asyncio.sleep(0)


class Restless:
    """A reader that stalls, breaks off, and comes back at the last id it has."""

    def __init__(self, world: World, rand: random.Random) -> None:
        self.words = rand.choice(FILTERS)
        self.got: list[int] = []
        self._world = world
        self._rand = rand
        self._place = 0

    async def read(self, published: asyncio.Event) -> None:
        while True:
            stream, paper = await self._world.open(after=self._place, room=self._some_room(), **self.words)
            await self._fidget(stream, paper)
            if published.is_set():
                break
            # What was on its way when it broke off may be lost, but half a frame never counts.
            cut = self._rand.randrange(len(paper.written) // 2, len(paper.written) + 1)
            self._take(interpret(paper.written[:cut]))
            stream.went_away()
        paper.drain()
        await self._world.settle()
        await until(lambda: stream.state is State.LIVE)
        self._take(paper.source)

    async def _fidget(self, stream: Stream, paper: Paper) -> None:
        for _ in range(self._rand.randrange(1, 200)):
            await asyncio.sleep(0)
            if paper.is_busy and self._rand.random() < 0.3:
                paper.drain(self._some_room())
            if self._rand.random() < 0.05:
                stream.beat()

    def _some_room(self) -> int | None:
        return self._rand.choice([None, 300, 5_000])

    def _take(self, source: Source) -> None:
        self.got += [int(event.last_event_id.split("-")[1]) for event in source.events]
        if source.last_event_id:
            self._place = int(source.last_event_id.split("-")[1])


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_readers_do_each_ends_with_exactly_its_part_of_the_log(seed: int) -> None:
    rand = random.Random(seed)
    world = World(ring_bytes=rand.choice([1, 20_000, 100_000]))
    published = asyncio.Event()
    async with world.tail, world.streams, asyncio.TaskGroup() as group:
        readers = [Restless(world, rand) for _ in range(10)]
        for reader in readers:
            group.create_task(reader.read(published))
        await asyncio.gather(*(publish_at_random(world, rand) for _ in range(3)))
        published.set()
    events = (await world.log.read(Cursor(0), limit=10**6, max_bytes=10**9)).events
    for reader in readers:
        matcher = Matcher(Filter.parse(**reader.words))
        assert reader.got == [event.cursor for event in events if matcher.matches(Candidate(event))]


# --- who may, and for how long ---------------------------------------------------------------------------------------


async def test_a_log_that_fails_turns_readers_away_and_keeps_no_place_for_them(world: World) -> None:
    world.log.fails = True
    with capture_logs(), pytest.raises(StorageUnavailable):
        await world.open(after=5)
    assert len(world.streams) == 0
    assert world.streams.hub.channels == 0


async def test_a_log_that_fails_on_the_way_sends_a_reader_away_to_come_back(forgetful: World) -> None:
    for _ in range(4):
        await forgetful.publish(10)
    await forgetful.settle()
    forgetful.log.gate.clear()
    _, paper = await forgetful.open(after=0)
    forgetful.log.fails = True
    forgetful.log.gate.set()
    with capture_logs() as lines:
        await until(lambda: paper.ended)
    assert [line["event"] for line in lines] == ["stream.past_unreadable"]
    assert paper.source.reconnection_ms == 5_000
    assert len(forgetful.streams) == 0


async def test_a_place_that_was_taken_and_never_used_is_given_back(world: World) -> None:
    opening = await world.streams.open(world.wish())
    opening.abandon()
    assert len(world.streams) == 0
    forgotten = await world.streams.open(world.wish())
    world.seconds += OPENING_SECONDS
    forgotten.stream.beat()
    assert len(world.streams) == 1
    world.seconds += 1
    forgotten.stream.beat()
    assert len(world.streams) == 0


async def test_a_stream_that_ended_before_it_began_ends_its_sink(world: World) -> None:
    opening = await world.streams.open(world.wish())
    await world.streams.drain()
    paper = Paper(opening.stream)
    opening.begin(paper)
    assert paper.ended
    assert world.streams.hub.channels == 0


async def test_a_key_revoked_while_it_opens_a_stream_opens_none(world: World) -> None:
    world.streams.feed(a_page([an_event(cursor=1, type=KEY_REVOKED, library_id="gateway", data=b'{"key_id":"key_1"}')]))
    with pytest.raises(Unauthenticated):
        await world.open()


async def test_expiry_ends_the_streams_of_their_time_in_any_order(world: World) -> None:
    papers = []
    for minutes in (3, 1, 2):
        opening = await world.streams.open(world.wish(key_id=f"key_{minutes}"))
        opening.abandon()
        wish = Wish(
            filter=Filter(),
            libraries=None,
            encoding=SseEncoding(),
            key_id="key",
            expires_at=NOON + timedelta(minutes=minutes),
        )
        opening = await world.streams.open(wish)
        papers.append(paper := Paper(opening.stream))
        opening.begin(paper)
    ended = []
    for _ in range(3):
        world.clock.advance(seconds=60)
        world.streams.tick()
        ended.append([paper.ended for paper in papers])
    assert ended == [[False, True, False], [False, True, True], [True, True, True]]


async def test_there_is_room_for_so_many_and_no_more() -> None:
    world = World(max_streams=2)
    async with world.tail, world.streams:
        await world.open()
        await world.open()
        with pytest.raises(Overloaded):
            await world.open()


async def test_a_drain_spreads_the_return_evenly_over_its_range(world: World) -> None:
    papers = [(await world.open())[1] for _ in range(2_000)]
    await world.streams.drain()
    retries = [paper.source.reconnection_ms or 0 for paper in papers]
    assert min(retries) >= 1_000
    assert max(retries) <= 10_000
    for low in range(1_000, 10_000, 1_000):
        share = sum(low <= retry < low + 1_000 for retry in retries) / len(retries)
        assert 0.06 < share < 0.17
    with pytest.raises(Overloaded):
        await world.open()


async def test_ending_all_streams_leaves_nothing_behind(world: World) -> None:
    async with AsyncExitStack():
        for number in range(50):
            await world.open(types=[f"type_{number}"], room=1 if number % 2 else None)
    await world.publish(10)
    await world.settle()
    await world.streams.drain()
    around = world.streams._around
    assert (len(world.streams), world.streams.hub.channels) == (0, 0)
    assert (len(around.behind), len(around.ahead)) == (0, 0)
    assert not any(world.streams._wheel)


async def test_what_was_delivered_is_counted(world: World) -> None:
    await world.open()
    await world.open(types=["custom"])
    world.clock.advance(seconds=0)
    await world.publish(3)
    await world.settle()
    await world.open(after=1)
    counts = world.streams.counts
    assert counts.opened == 3
    assert (counts.events_delivered, counts.live_events_delivered) == (3 + 2, 3)
    assert counts.latency_seconds == 0


# --- tokens for certain types ----------------------------------------------------------------------------------------

PATTERNS = ["*", "a", "a.b", "a.b.c", "a.*", "a.b.*", "b.*", "gateway.*", "gateway.x", "gateway.x.*", "gateway.x.y"]
TYPES = ["a", "b", "a.b", "a.c", "a.b.c", "b.c", "gateway.x", "gateway.x.y", "gateway.z"]
some_patterns = st.frozensets(st.sampled_from(PATTERNS), min_size=1)


@given(some_patterns, some_patterns, st.sampled_from(TYPES))
def test_a_narrowed_filter_lets_through_what_both_would(
    wanted: frozenset[str], allowed: frozenset[str], type_: str
) -> None:
    candidate = Candidate(an_event(type=type_))
    both = all(Matcher(Filter(types=types)).matches(candidate) for types in (wanted, allowed))
    assert Matcher(narrowed(Filter(types=wanted), allowed)).matches(candidate) is both


def test_a_filter_without_types_takes_those_of_the_token() -> None:
    assert narrowed(Filter(), frozenset({"gateway.*"})) == Filter(types=frozenset({"gateway.*"}))
    assert narrowed(Filter(), None) == Filter()
