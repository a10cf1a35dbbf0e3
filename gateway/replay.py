"""Replays: past events sent again, at the pace of their receivers, behind live work.

    asked for ──▶ count ──▶ 202, a row ──▶ portions, in the order of the log ──▶ offered to their lane
                                              deliveries + cursor, one commit

A replay is a reader of the log with a cursor of its own. Only so many of its deliveries wait at once, so that one of a
million events is quickly begun and quickly stopped. It stays behind the fan-out: what has no live delivery yet is not
past. Of one subscription's replays the oldest is served first, the next when all of its deliveries have been tried.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from gateway.errors import StorageUnavailable
from gateway.events import Cursor, LoggedEvent
from gateway.filters import Candidate, Filter
from gateway.ports.replays import Replay, ReplayStore, Selection, Stretch, Unfinished
from gateway.subscriptions import Subscription
from webhooks.clock import Clock, SystemClock
from webhooks.deliveries import Delivery, Settlement

LOOK_EVERY = timedelta(seconds=1)
"""How long it may go unnoticed that there is something to do."""
CATCH_UP = timedelta(milliseconds=100)
"""How often a replay that has come as far as the fan-out looks whether that went on."""
REST = timedelta(seconds=60)
"""How long a replay is left alone after a fault of ours with it."""
MOST_UNTRIED = 500
"""So many of a replay's deliveries wait for their first attempt, at most. Few enough to write at once."""
PACED_SECONDS = 5
"""With a rate of its own, so many as it may send in this time."""
MOST_PENDING = 10_000
"""With as many pending, for a receiver that takes none, no more are made."""
AT_MOST = 100
"""Replays of one subscription that are not finished."""
FOUND_AT_ONCE = 200
TESTED_BYTES, TESTED_EVENTS = 2**15, 50
"""Events that an expression is tried on before the loop gets a turn."""

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What a replay would send."""

    selection: Selection
    stretch: Stretch
    matched: int


class Replayer:
    """`run` it; *offer* is given what it made, by subscription, and *changed* told whose deliveries it cancelled."""

    def __init__(
        self,
        store: ReplayStore,
        *,
        offer: Callable[[Mapping[str, Sequence[Delivery]]], None],
        changed: Callable[[str], None],
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._offer = offer
        self._changed = changed
        self._clock = clock or SystemClock()
        self._news = asyncio.Event()
        self._reading = asyncio.Lock()
        self._left: dict[str, int] = {}
        """How many settlements of a replay later there may be something to do for it."""
        self._resting: dict[str, datetime] = {}

    async def look(
        self, subscription: Subscription, asked: Filter, *, since: datetime, until: datetime | None, undelivered: bool
    ) -> Prospect:
        """Count what a replay of *subscription* would send, were it started now.

        It takes as long as there is log to look at: some 2 s per million events, and with an expression one or two
        minutes per million of those that its types and libraries leave. Between two portions of it everybody else has
        a turn, and one is read at a time, however many look.
        """
        stretch = await self._store.stretch(since, until)
        if undelivered:
            # What the fan-out has not reached will be delivered without our help.
            reached = max(await self._store.fanned_out(), subscription.created_cursor, stretch.after)
            stretch = Stretch(after=stretch.after, last=min(stretch.last, reached))
        selection = Selection(
            subscription_id=subscription.id,
            own=subscription.filter,
            libraries=subscription.libraries,
            asked=asked,
            undelivered=undelivered,
        )
        matched, after = 0, stretch.after
        while after < stretch.last:
            async with self._reading:
                count, after = await self._count(selection, Stretch(after=after, last=stretch.last))
            matched += count
        return Prospect(selection=selection, stretch=stretch, matched=matched)

    async def start(self, prospect: Prospect, *, max_per_second: float | None) -> str | None:
        """Keep it, durably, and begin; its id. None: the subscription is gone.

        Raises:
            Conflict: the subscription has as many as it may have.
        """
        replay_id = await self._store.start(
            prospect.selection,
            prospect.stretch,
            matched=prospect.matched,
            max_per_second=max_per_second,
            now=self._clock.now(),
            at_most=AT_MOST,
        )
        self._news.set()
        return replay_id

    def settled(self, settlements: Sequence[Settlement]) -> None:
        """*settlements* have been stored."""
        for settlement in settlements:
            replay_id = settlement.delivery.replay_id
            if replay_id is not None and replay_id in self._left:
                self._left[replay_id] -= 1
                if self._left[replay_id] <= 0:
                    self._news.set()

    async def run(self) -> None:
        """Serve all replays until cancelled, whatever the database does meanwhile."""
        while True:
            self._news.clear()
            try:
                pause = await self._round()
            except StorageUnavailable as error:
                _logger.warning("replays.waiting", error=error.detail)
                self._news.clear()
                pause = LOOK_EVERY
            if pause:
                await self._clock.wait(self._news, self._clock.now() + pause)

    async def _round(self) -> timedelta:
        """Make a portion of each replay whose turn it is. After how long there may be more to make."""
        unfinished = await self._store.unfinished()
        self._left = {replay.id: _worth_a_look(replay) for replay in unfinished.replays}
        await self._end(unfinished.replays)
        pause = LOOK_EVERY
        for replay, room in portions(unfinished):
            if replay.is_level_with(unfinished.fanned_out):
                pause = min(pause, CATCH_UP)
                continue
            if self._resting.get(replay.id, self._clock.now()) > self._clock.now():
                continue
            try:
                if await self._portion(replay, room, unfinished.fanned_out):
                    pause = timedelta(0)
            except StorageUnavailable:
                raise
            except Exception:
                _logger.exception("replay.failed", replay=replay.id)
                self._resting[replay.id] = self._clock.now() + REST
        return pause

    async def _portion(self, replay: Replay, room: int, fanned_out: Cursor) -> bool:
        """Whether it went on; if not, it is not ours to serve any more."""
        selection, left = replay.selection, replay.stretch
        if selection is None or left is None:
            return False
        within = Stretch(after=left.after, last=min(left.last, fanned_out))
        found = await self._store.find(selection, within, limit=room)
        events = await _matching(selection, found.events)
        made = await self._store.make(replay, events, to=found.last)
        if made:
            self._offer({selection.subscription_id: made})
        return made is not None

    async def _end(self, replays: Sequence[Replay]) -> None:
        """End what a stop left undone, and say which are finished. What orphaned ones owe others cancel."""
        for replay in replays:
            if replay.is_stopped and replay.pending:
                for subscription_id in await self._store.stop(replay.id) or ():
                    self._changed(subscription_id)
        if finished := [one.id for one in replays if (one.is_made or one.is_orphaned) and not one.pending]:
            await self._store.finish(finished)
        for replay_id in self._resting.keys() - self._left.keys():
            del self._resting[replay_id]

    async def _count(self, selection: Selection, stretch: Stretch) -> tuple[int, Cursor]:
        """One bounded read: how many match, and up to where it looked."""
        if selection.is_plain:
            counted = await self._store.count(selection, stretch)
            return counted.matched, counted.last
        found = await self._store.find(selection, stretch, limit=FOUND_AT_ONCE)
        return len(await _matching(selection, found.events)), found.last


def portions(unfinished: Unfinished) -> Iterator[tuple[Replay, int]]:
    """Of which replays a portion is to be made now, and of how many deliveries at most."""
    in_turn: set[str] = set()
    for replay in unfinished.replays:
        selection = replay.selection
        if selection is None or replay.is_stopped or replay.is_orphaned or selection.subscription_id in in_turn:
            continue
        if replay.is_made and not replay.untried:
            continue  # the next may begin, though some of it may be tried again for days
        in_turn.add(selection.subscription_id)
        if replay.is_active and not replay.is_made and (room := _room(replay)) > 0:
            yield replay, room


def _room(replay: Replay) -> int:
    """How many more of it may be made: none before half of those that may wait have been tried."""
    window = _window(replay)
    return 0 if replay.untried > window // 2 else min(window - replay.untried, MOST_PENDING - replay.pending)


def _window(replay: Replay) -> int:
    if replay.max_per_second is None:
        return MOST_UNTRIED
    return min(MOST_UNTRIED, max(2, round(PACED_SECONDS * replay.max_per_second)))


def _worth_a_look(replay: Replay) -> int:
    """After how many settlements of it there is room for more, or another's turn, or an end."""
    if not replay.untried:
        return max(1, replay.pending)
    return max(1, replay.untried - (0 if replay.is_made else _window(replay) // 2))


async def _matching(selection: Selection, events: Sequence[LoggedEvent]) -> list[LoggedEvent]:
    """Those of *events* that it chooses, without holding up the loop for long."""
    if selection.is_plain:
        return list(events)
    matcher = selection.matcher()
    matching: list[LoggedEvent] = []
    count = size = 0
    for event in events:
        if matcher.matches(Candidate(event)):
            matching.append(event)
        count, size = count + 1, size + len(event.data)
        if count >= TESTED_EVENTS or size >= TESTED_BYTES:
            count = size = 0
            await asyncio.sleep(0)
    return matching
