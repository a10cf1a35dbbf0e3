"""When retention looks, what it asks for, and how it gives way to others."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gateway.errors import StorageUnavailable
from gateway.events import Cursor
from gateway.ports.retention import Dropped
from gateway.upkeep.retention import REST, RETRY_SECONDS, ROWS_AT_ONCE, Retention
from tests.builders import NOON, HandClock
from tests.until import until

DAY = timedelta(days=1)
NOTHING = Dropped(events=0, owing=frozenset(), more=False)


@dataclass
class FakeStore:
    """Answers what it is given, then that nothing is left; remembers what it was asked."""

    clock: HandClock = field(default_factory=HandClock)
    events: list[Dropped | Exception] = field(default_factory=list)
    rows: dict[str, list[int]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    before: dict[str, datetime] = field(default_factory=dict)
    passed: list[Cursor] = field(default_factory=list)
    seconds_a_batch: float = 0.0

    async def drop_events(
        self, *, before: datetime, passed: Cursor, limit: int, max_bytes: int, most_owed: int
    ) -> Dropped:
        assert min(limit, max_bytes, most_owed) > 0
        self._note("events", before)
        self.passed.append(passed)
        answer = self.events.pop(0) if self.events else NOTHING
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def drop_attempts(self, *, before: datetime, limit: int) -> int:
        return self._rows("attempts", before, limit)

    async def drop_deliveries(self, *, before: datetime, limit: int) -> int:
        return self._rows("deliveries", before, limit)

    async def drop_remains(self, *, before: datetime, limit: int) -> int:
        return self._rows("remains", before, limit)

    def _rows(self, name: str, before: datetime, limit: int) -> int:
        assert limit == ROWS_AT_ONCE
        self._note(name, before)
        waiting = self.rows.get(name)
        return waiting.pop(0) if waiting else 0

    def _note(self, name: str, before: datetime) -> None:
        self.asked.append(name)
        self.before[name] = before
        self.clock.advance(seconds=self.seconds_a_batch)


@dataclass
class Naps:
    """Sleeps without time passing, so often as it is let, then for ever."""

    left: int
    taken: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        if len(self.taken) > self.left:
            await asyncio.Event().wait()
        await asyncio.sleep(0)


@asynccontextmanager
async def at_work(
    store: FakeStore,
    naps: Naps,
    *,
    events_for: timedelta = 30 * DAY,
    attempts_for: timedelta = 30 * DAY,
    passed: Callable[[], Cursor] = lambda: Cursor(7),
    expired: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[None]:
    """Until all its naps are taken."""

    def monotonic() -> float:
        return (store.clock() - NOON).total_seconds()

    retention = Retention(
        store,
        events_for=events_for,
        attempts_for=attempts_for,
        clock=store.clock,
        passed=passed,
        expired=expired,
        sleep=naps,
        monotonic=monotonic,
    )
    task = asyncio.create_task(retention.run())
    await until(lambda: len(naps.taken) > naps.left)
    yield
    task.cancel()
    await asyncio.wait([task])


async def test_each_thing_is_asked_for_by_its_own_age() -> None:
    store = FakeStore()
    async with at_work(store, Naps(4), events_for=DAY, attempts_for=2 * DAY):
        assert store.asked == ["events", "attempts", "deliveries", "remains"]
        two_days_ago = NOON - 2 * DAY
        assert store.before == {
            "events": NOON - DAY,
            "attempts": two_days_ago,
            "deliveries": two_days_ago,
            "remains": two_days_ago,
        }


async def test_no_event_goes_that_this_process_has_not_read() -> None:
    store = FakeStore(events=[Dropped(events=1, owing=frozenset(), more=True)])
    places = iter([Cursor(3), Cursor(9)])
    async with at_work(store, Naps(5), passed=lambda: next(places)):
        assert store.passed == [3, 9]


async def test_only_that_is_asked_for_again_of_which_there_may_be_more() -> None:
    full = ROWS_AT_ONCE
    store = FakeStore(
        events=[Dropped(events=5, owing=frozenset(), more=True)],
        rows={"attempts": [full, full, 1], "deliveries": [full - 1], "remains": [full]},
    )
    async with at_work(store, Naps(4 + 3 + 1 + 0)):
        assert store.asked == [
            "events",
            "attempts",
            "deliveries",
            "remains",
            "events",
            "attempts",
            "remains",
            "attempts",
        ]


async def test_it_rests_for_longer_than_a_batch_takes_and_then_looks_again_in_a_while() -> None:
    store = FakeStore(seconds_a_batch=0.25)
    naps = Naps(5)
    async with at_work(store, naps):
        assert naps.taken == [0.25 * REST] * 4 + [10.0] + [0.25 * REST]


async def test_what_is_kept_for_a_short_time_is_looked_for_more_often() -> None:
    naps = Naps(4)
    async with at_work(FakeStore(), naps, events_for=timedelta(seconds=2)):
        assert naps.taken[-1] == 0.2


async def test_lanes_hear_of_what_has_expired() -> None:
    heard: list[str] = []
    store = FakeStore(events=[Dropped(events=0, owing=frozenset({"sub_a", "sub_b"}), more=False)])
    async with at_work(store, Naps(4), expired=heard.append):
        assert sorted(heard) == ["sub_a", "sub_b"]


async def test_a_database_that_is_away_is_asked_again() -> None:
    gone = Dropped(events=1, owing=frozenset(), more=False)
    store = FakeStore(events=[StorageUnavailable("disk full"), StorageUnavailable("disk full"), gone])
    naps = Naps(2 + 4)
    async with at_work(store, naps):
        assert naps.taken[:2] == [RETRY_SECONDS, RETRY_SECONDS]
        assert store.asked == ["events", "events", "events", "attempts", "deliveries", "remains"]
