"""A store of replays in memory, over a log in memory, verified by tests/contracts/replay_store.py."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from gateway.errors import Conflict
from gateway.events import Cursor, LoggedEvent
from gateway.filters import Candidate, Filter, Matcher
from gateway.ports.replays import Counted, Found, Replay, Selection, Stretch, Unfinished
from gateway.storage.memory import MemoryEventLog
from tests.fakes.clock import START
from webhooks.deliveries import Delivery, DeliveryStatus

SERVED = {DeliveryStatus.PENDING, DeliveryStatus.DELIVERED}


@dataclass(slots=True)
class Made:
    delivery: Delivery
    status: DeliveryStatus = DeliveryStatus.PENDING
    attempts: int = 0


@dataclass(slots=True)
class Kept:
    replay: Replay
    matched: int
    created: int = 0
    finished_at: datetime | None = None
    made: dict[str, Made] = field(default_factory=dict)

    def count(self, status: DeliveryStatus) -> int:
        return sum(made.status is status for made in self.made.values())


class MemoryReplayStore:
    """`gateway.replays.ReplayStore`. The next of `faults` is raised by the next call that makes or looks."""

    def __init__(self, log: MemoryEventLog, *, examined: int = 10_000) -> None:
        self.log = log
        self.now = START
        self.examined = examined
        """So many events one read looks at."""
        self.active: dict[str, bool] = {}
        """The subscriptions that are there, and whether they are active."""
        self.live: dict[tuple[str, int], DeliveryStatus] = {}
        """What the fan-out has made, by subscription and event."""
        self.fanned_out_to: Cursor | None = None
        """None: it keeps up."""
        self.kept: dict[str, Kept] = {}
        self.faults: list[Exception] = []
        self.made_at_once: list[int] = []

    async def stretch(self, since: datetime, until: datetime | None) -> Stretch:
        position = await self.log.position()
        dropped = await self.log.dropped_until()
        after = position.earliest - 1 if dropped and since <= dropped else await self.log.before(since)
        last = position.head if until is None else await self.log.before(until)
        return Stretch(after=Cursor(after), last=Cursor(max(after, last)))

    async def fanned_out(self) -> Cursor:
        return (await self.log.position()).head if self.fanned_out_to is None else self.fanned_out_to

    async def count(self, selection: Selection, stretch: Stretch) -> Counted:
        found = await self.find(selection, stretch, limit=self.examined)
        return Counted(matched=len(found.events), last=found.last)

    async def find(self, selection: Selection, stretch: Stretch, *, limit: int) -> Found:
        own = Matcher(Filter(selection.own.library_ids, selection.own.types), selection.libraries)
        asked = Matcher(replace(selection.asked, types=selection.asked.types or frozenset({"*", "gateway.*"})))
        chosen: list[LoggedEvent] = []
        page = await self.log.read(stretch.after, limit=self.examined, max_bytes=2**30)
        within = [event for event in page.events if event.cursor <= stretch.last]
        for event in within:
            candidate = Candidate(event)
            if own.matches(candidate) and asked.matches(candidate) and not self._is_left_out(selection, event.cursor):
                chosen.append(event)
                if len(chosen) == limit:
                    return Found(events=tuple(chosen), last=event.cursor)
        return Found(events=tuple(chosen), last=within[-1].cursor if len(within) == self.examined else stretch.last)

    async def start(
        self,
        selection: Selection,
        stretch: Stretch,
        *,
        matched: int,
        max_per_second: float | None,
        now: datetime,
        at_most: int,
    ) -> str | None:
        subscription_id = selection.subscription_id
        if subscription_id not in self.active:
            return None
        running = [
            kept
            for kept in self.kept.values()
            if kept.replay.subscription_id == subscription_id and kept.finished_at is None
        ]
        if len(running) >= at_most:
            raise Conflict("as many as it may have")
        replay_id = f"rpl_{len(self.kept):04}"
        replay = Replay(
            id=replay_id,
            subscription_id=subscription_id,
            selection=selection,
            stretch=stretch,
            max_per_second=max_per_second,
        )
        self.kept[replay_id] = Kept(replay=replay, matched=matched)
        return replay_id

    async def unfinished(self) -> Unfinished:
        self._fail()
        replays = sorted(
            (self._as_it_is(kept) for kept in self.kept.values() if kept.finished_at is None),
            key=lambda replay: (replay.subscription_id or "", replay.id),
        )
        return Unfinished(replays=tuple(replays), fanned_out=await self.fanned_out())

    async def make(self, replay: Replay, events: Sequence[LoggedEvent], *, to: Cursor) -> Sequence[Delivery] | None:
        self._fail()
        kept = self.kept[replay.id]
        selection, stretch = replay.selection, replay.stretch
        assert selection is not None
        assert stretch is not None
        where = kept.replay.stretch
        assert where is not None
        if where.after != stretch.after or kept.replay.is_stopped or selection.subscription_id not in self.active:
            return None
        earliest = (await self.log.position()).earliest
        made = [
            _delivery(replay, selection.subscription_id, event, self.now)
            for event in events
            if event.cursor >= earliest and not self._is_left_out(selection, event.cursor)
        ]
        kept.made |= {one.id: Made(one) for one in made}
        kept.created += len(made)
        kept.replay = replace(kept.replay, stretch=replace(where, after=to))
        self.made_at_once.append(len(made))
        return made

    async def stop(self, replay_id: str) -> frozenset[str] | None:
        if (kept := self.kept.get(replay_id)) is None:
            return None
        owed = {one.delivery.endpoint_id for one in kept.made.values() if one.status is DeliveryStatus.PENDING}
        if kept.finished_at is None:
            kept.replay = replace(kept.replay, is_stopped=True)
        self.cancel(replay_id)
        await self.finish([replay_id])
        return frozenset(owed)

    async def finish(self, replay_ids: Sequence[str]) -> None:
        for replay_id in replay_ids:
            kept = self.kept[replay_id]
            now = self._as_it_is(kept)
            if kept.finished_at is None and (now.is_made or now.is_orphaned) and not now.pending:
                kept.replay = replace(kept.replay, is_stopped=kept.replay.is_stopped or not now.is_made)
                kept.finished_at = self.now

    def cancel(self, replay_id: str) -> None:
        for one in self.kept[replay_id].made.values():
            if one.status is DeliveryStatus.PENDING:
                one.status = DeliveryStatus.CANCELLED

    def settle(self, delivery_id: str, status: DeliveryStatus) -> None:
        """An attempt of the replayed delivery left it in *status*."""
        for kept in self.kept.values():
            if (one := kept.made.get(delivery_id)) is not None:
                one.status, one.attempts = status, one.attempts + 1

    def pending(self, replay_id: str) -> list[Delivery]:
        return [one.delivery for one in self.kept[replay_id].made.values() if one.status is DeliveryStatus.PENDING]

    def _as_it_is(self, kept: Kept) -> Replay:
        subscription_id = kept.replay.subscription_id or ""
        pending = [one for one in kept.made.values() if one.status is DeliveryStatus.PENDING]
        return replace(
            kept.replay,
            is_active=self.active.get(subscription_id, False),
            is_orphaned=subscription_id not in self.active,
            untried=sum(one.attempts == 0 for one in pending),
            pending=len(pending),
        )

    def _is_left_out(self, selection: Selection, cursor: int) -> bool:
        if not selection.undelivered:
            return False
        own = [
            one.status
            for kept in self.kept.values()
            for one in kept.made.values()
            if (one.delivery.endpoint_id, one.delivery.cursor) == (selection.subscription_id, cursor)
        ]
        live = self.live.get((selection.subscription_id, cursor))
        return not SERVED.isdisjoint([live, *own])

    def _fail(self) -> None:
        if self.faults:
            raise self.faults.pop(0)


def _delivery(replay: Replay, subscription_id: str, event: LoggedEvent, now: datetime) -> Delivery:
    return Delivery(
        id=f"dlv_{replay.id}_{event.cursor:06}",
        endpoint_id=subscription_id,
        event_id=event.id,
        event_type=event.type.value,
        library_id=event.library_id,
        cursor=event.cursor,
        body=event.body,
        event_time=event.timestamp,
        created_at=now,
        due_at=now,
        replay_id=replay.id,
        replayed=True,
        replay_per_second=replay.max_per_second,
    )
