"""The event log in memory: for a bus without a server, and for tests, held to the same contract as the others."""

import secrets
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from gateway.events import Cursor, Draft, LoggedEvent, Page, Position, accepted
from gateway.filters import Candidate, Matcher
from gateway.intake.sameness import same_content
from gateway.listing import EXAMINED_BYTES, EXAMINED_ROWS, Listing
from gateway.ports.log import Appended, HistoryQuery, IdTaken, LiveBus, Receipt
from gateway.times import Clock, now

EVENT_OVERHEAD_BYTES = 512
"""About what an event costs beside its data."""


class MemoryEventLog:
    """Keeps the newest events up to about *max_bytes*, and forgets the oldest beyond that.

    What was appended is announced on *bus* before `append` returns.
    """

    def __init__(
        self,
        bus: LiveBus | None = None,
        *,
        clock: Clock = now,
        epoch: str | None = None,
        max_bytes: int = 64 * 2**20,
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._epoch = epoch or secrets.token_hex(4)
        self._max_bytes = max_bytes
        self._events: list[LoggedEvent] = []
        self._start = 0
        """Events before this index of the list are dropped; the list is cut now and then, not every time."""
        self._by_id: dict[str, LoggedEvent] = {}
        self._bytes = 0
        self._head = Cursor(0)
        self._last_accepted_at: datetime | None = None
        self._dropped_until: datetime | None = None

    async def position(self) -> Position:
        return Position(epoch=self._epoch, head=self._head, earliest=self._earliest)

    async def append(self, batches: Sequence[Sequence[Draft]]) -> list[Appended]:
        moment = self._clock()
        if self._last_accepted_at is not None:
            moment = max(moment, self._last_accepted_at)
        after = self._head
        added: list[LoggedEvent] = []
        answers = [self._append_batch(batch, moment, added) for batch in batches]
        if added:
            self._last_accepted_at = moment
            if self._bus is not None:
                self._bus.announce(Page(after=after, events=tuple(added)))
            self._forget_oldest()
        return answers

    async def read(self, after: Cursor, *, limit: int = 1000, max_bytes: int = 2**20) -> Page:
        events: list[LoggedEvent] = []
        size = 0
        for event in self._since(after):
            size += len(event.data) + EVENT_OVERHEAD_BYTES
            if events and (len(events) >= limit or size > max_bytes):
                break
            events.append(event)
        return Page(after=after, events=tuple(events))

    async def history(self, query: HistoryQuery) -> Listing[LoggedEvent, Cursor]:
        matcher = Matcher(query.filter, query.libraries)
        candidates = self._range(query)
        rows: list[LoggedEvent] = []
        size = 0
        for examined, event in enumerate(candidates, 1):
            if matcher.matches(Candidate(event)):
                rows.append(event)
            size += len(event.data)
            if len(rows) >= query.limit or examined >= EXAMINED_ROWS or size >= EXAMINED_BYTES:
                return Listing(tuple(rows), None if next(candidates, None) is None else event.cursor)
        return Listing(tuple(rows), None)

    async def get(self, event_id: str) -> LoggedEvent | None:
        return self._by_id.get(event_id)

    async def before(self, moment: datetime) -> Cursor:
        return Cursor(self._earliest - 1 + self._index_of(moment) - self._start)

    async def dropped_until(self) -> datetime | None:
        return self._dropped_until

    def drop(self, until: Cursor) -> None:
        """Forget the events up to and including *until*, as retention does."""
        while self._start < len(self._events) and self._events[self._start].cursor <= until:
            event = self._events[self._start]
            del self._by_id[event.id]
            self._bytes -= len(event.data) + EVENT_OVERHEAD_BYTES
            self._dropped_until = event.accepted_at
            self._start += 1
        if self._start > len(self._events) // 2:
            del self._events[: self._start]
            self._start = 0

    @property
    def _earliest(self) -> Cursor:
        return Cursor(self._head - (len(self._events) - self._start) + 1)

    def _append_batch(self, batch: Sequence[Draft], moment: datetime, added: list[LoggedEvent]) -> Appended:
        receipts: list[Receipt] = []
        fresh: dict[str, LoggedEvent] = {}
        for index, draft in enumerate(batch):
            known = fresh.get(draft.id) or self._by_id.get(draft.id)
            if known is not None and not same_content(draft, known):
                return IdTaken(index, draft.id)
            if known is None:
                known = fresh[draft.id] = accepted(draft, Cursor(self._head + len(fresh) + 1), moment)
                receipts.append(Receipt(known.id, known.cursor, duplicate=False))
            else:
                receipts.append(Receipt(known.id, known.cursor, duplicate=True))
        self._keep(fresh.values())
        added.extend(fresh.values())
        return tuple(receipts)

    def _keep(self, events: Iterable[LoggedEvent]) -> None:
        for event in events:
            self._events.append(event)
            self._by_id[event.id] = event
            self._bytes += len(event.data) + EVENT_OVERHEAD_BYTES
            self._head = event.cursor

    def _forget_oldest(self) -> None:
        excess = self._bytes - self._max_bytes
        until = Cursor(0)
        for event in self._since(Cursor(0)):
            if excess <= 0:
                break
            excess -= len(event.data) + EVENT_OVERHEAD_BYTES
            until = event.cursor
        self.drop(until)

    def _since(self, after: Cursor) -> Iterator[LoggedEvent]:
        start = self._start + max(0, after + 1 - self._earliest)
        return (self._events[index] for index in range(start, len(self._events)))

    def _index_of(self, moment: datetime) -> int:
        return bisect_left(self._events, moment, lo=self._start, key=lambda event: event.accepted_at)

    def _range(self, query: HistoryQuery) -> Iterator[LoggedEvent]:
        first, end = self._start, len(self._events)
        if query.since is not None:
            first = max(first, self._index_of(query.since))
        if query.until is not None:
            end = min(end, self._index_of(query.until))
        if query.after is not None:
            first = max(first, self._start + query.after + 1 - self._earliest)
        if query.order == "asc":
            if query.resume is not None:
                first = max(first, self._start + query.resume + 1 - self._earliest)
            return (self._events[index] for index in range(first, end))
        if query.resume is not None:
            end = min(end, self._start + query.resume - self._earliest)
        return (self._events[index] for index in range(end - 1, first - 1, -1))
