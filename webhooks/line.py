"""The part of a lane's backlog that is in memory, and which of it may go next.

    store ──refill──▶ waiting ──take──▶ out ──release──▶ (settled in the store)

A delivery that is out is still pending in the store until its settlement is committed, so reads return it again; both
kinds of line know what they hold and pass it over. Something that is released while a read is under way may be in that
read as it was before: it is passed over too.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol

from webhooks.deliveries import Delivery
from webhooks.ports import DeliveryStore


class Line(Protocol):
    more: bool
    """The store may have deliveries to send that are not here. Set by whoever knows; `refill` clears it."""
    next_due: datetime | None
    """When the next one becomes due, as far as is known."""
    largest: int
    """Bytes of the largest body in the last read."""

    @property
    def waiting(self) -> int: ...

    @property
    def out(self) -> int: ...

    async def refill(self, now: datetime, *, room: int) -> None:
        """Read the store anew: what waits here afterwards is as it is there, and at most about *room* more."""

    def has_next(self, *, only_forced: bool) -> bool: ...

    def peek(self, *, only_forced: bool) -> Delivery:
        """The next that may be sent, which there has to be."""

    def take(self, *, only_forced: bool) -> Delivery:
        """The same; it is out from now on."""

    def received(self, delivery: Delivery, now: datetime) -> None:
        """Its receiver has it, though the store does not know yet."""

    def release(self, delivery: Delivery, now: datetime, *, due_again: datetime | None) -> None:
        """The store knows what became of it. *due_again*: it stays pending until then."""

    def offer(self, fresh: Sequence[Delivery], *, room: int) -> None:
        """*fresh* have just been stored, and are due. They may be taken as they are, which saves a read."""

    def forget(self) -> None:
        """Drop what waits; the next `refill` reads it again."""


class FreeLine:
    """Any order: those that were forced, then by due time."""

    def __init__(self, store: DeliveryStore, endpoint_id: str, *, replayed: bool = False) -> None:
        self._store = store
        self._endpoint_id = endpoint_id
        self._replayed = replayed
        self._waiting: deque[Delivery] = deque()
        self._forced: deque[Delivery] = deque()
        self._is_reading = False
        self._out: set[str] = set()
        self._released: set[str] = set()
        self.more = True
        self.next_due: datetime | None = None
        self.largest = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._forced)

    @property
    def out(self) -> int:
        return len(self._out)

    async def refill(self, now: datetime, *, room: int) -> None:
        self.more, self.next_due = False, None
        self._released.clear()
        self._is_reading = True
        try:
            limit = self.out + self.waiting + room
            due = await self._store.due(self._endpoint_id, now=now, limit=limit, replayed=self._replayed)
        except BaseException:
            self.more = True
            raise
        finally:
            self._is_reading = False
        passed_over = self._out | self._released
        self.largest = _largest(due.deliveries)
        fresh = [delivery for delivery in due.deliveries if delivery.id not in passed_over]
        self._forced = deque(delivery for delivery in fresh if delivery.forced)
        self._waiting = deque(delivery for delivery in fresh if not delivery.forced)
        if due.next_due_at is not None and due.next_due_at <= now:
            self.more = True
        else:
            self._expect(due.next_due_at)

    def has_next(self, *, only_forced: bool) -> bool:
        return bool(self._forced) or bool(self._waiting and not only_forced)

    def peek(self, *, only_forced: bool) -> Delivery:
        return self._forced[0] if self._forced else self._waiting[0]

    def take(self, *, only_forced: bool) -> Delivery:
        delivery = self._forced.popleft() if self._forced else self._waiting.popleft()
        self._out.add(delivery.id)
        return delivery

    def received(self, delivery: Delivery, now: datetime) -> None:
        """Nothing waits for it."""

    def release(self, delivery: Delivery, now: datetime, *, due_again: datetime | None) -> None:
        self._out.discard(delivery.id)
        self._released.add(delivery.id)
        self._expect(due_again)

    def offer(self, fresh: Sequence[Delivery], *, room: int) -> None:
        if self.more or self._is_reading or len(fresh) > room:
            # Older ones may be left in the store, or the read under way may have missed these.
            self.more = True
            return
        self._waiting.extend(fresh)
        self.largest = max(self.largest, _largest(fresh))

    def forget(self) -> None:
        self._waiting.clear()
        self._forced.clear()
        self.more = True

    def _expect(self, moment: datetime | None) -> None:
        self.next_due = earlier(self.next_due, moment)


class LibraryLine:
    """Of one library strictly by cursor: the next waits until the one ahead is delivered or dead. Others flow on.

    A delivery that was received lets the next go at once. One that failed or died does so only when the store knows:
    were it forgotten in a crash, it would be sent again, and its first receipt come after that of a later one.
    """

    PER_LIBRARY = 8
    """How many of one library are read at once, at least: with a read for each, reads would set the pace."""

    def __init__(self, store: DeliveryStore, endpoint_id: str, *, replayed: bool = False) -> None:
        self._store = store
        self._endpoint_id = endpoint_id
        self._replayed = replayed
        self._queues: dict[str, deque[Delivery]] = {}
        self._ready: dict[str, None] = {}
        self._blocked: dict[str, str] = {}
        self._cut: set[str] = set()
        self._out: set[str] = set()
        self._released: set[str] = set()
        self._returned: set[str] = set()
        self.more = True
        self.next_due: datetime | None = None
        self.largest = 0

    @property
    def waiting(self) -> int:
        return len(self._ready)

    @property
    def out(self) -> int:
        return len(self._out)

    async def refill(self, now: datetime, *, room: int) -> None:
        self.more, self.next_due = False, None
        self._released.clear()
        self._returned.clear()
        limit = self.out + self.waiting + room
        per_library = max(self.PER_LIBRARY, room // (len(self._queues) + 1))
        try:
            rows = await self._store.queue(
                self._endpoint_id, limit=limit, per_library=per_library, replayed=self._replayed
            )
        except BaseException:
            self.more = True
            raise
        self.largest = _largest(rows)
        by_library: dict[str, list[Delivery]] = {}
        for row in rows:
            by_library.setdefault(row.library_id, []).append(row)
        self._queues.clear()
        self._ready.clear()
        was_cut = len(rows) >= limit
        self._cut = {library for library, found in by_library.items() if was_cut or len(found) >= per_library}
        passed_over = self._out | self._released
        for library, found in by_library.items():
            if library in self._returned:
                # One of it failed while it was read, and may stand here with its old due time: read it again.
                self.more = True
            elif queue := deque(row for row in found if row.id not in passed_over):
                self._queues[library] = queue
                self._advance(library, now)

    def has_next(self, *, only_forced: bool) -> bool:
        return next(self._candidates(only_forced=only_forced), None) is not None

    def peek(self, *, only_forced: bool) -> Delivery:
        return self._queues[next(self._candidates(only_forced=only_forced))][0]

    def take(self, *, only_forced: bool) -> Delivery:
        library = next(self._candidates(only_forced=only_forced))
        del self._ready[library]
        delivery = self._queues[library].popleft()
        self._blocked[library] = delivery.id
        self._out.add(delivery.id)
        return delivery

    def received(self, delivery: Delivery, now: datetime) -> None:
        if self._blocked.get(delivery.library_id) == delivery.id:
            del self._blocked[delivery.library_id]
            self._advance(delivery.library_id, now)

    def release(self, delivery: Delivery, now: datetime, *, due_again: datetime | None) -> None:
        library = delivery.library_id
        self._out.discard(delivery.id)
        self._released.add(delivery.id)
        if self._blocked.get(library) == delivery.id:
            del self._blocked[library]
        if due_again is None:
            self._advance(library, now)
            return
        # It stands ahead of all that is here of its library; they are read again when it is due.
        self._returned.add(library)
        self._queues.pop(library, None)
        self._ready.pop(library, None)
        self.next_due = earlier(self.next_due, due_again)

    def offer(self, fresh: Sequence[Delivery], *, room: int) -> None:
        # Which of a library is next is for the store to say: only the tip of each is here.
        self.more = True

    def forget(self) -> None:
        self._queues.clear()
        self._ready.clear()
        self._cut.clear()
        self.more = True

    def _candidates(self, *, only_forced: bool) -> Iterator[str]:
        return (library for library in self._ready if not only_forced or self._queues[library][0].forced)

    def _advance(self, library: str, now: datetime) -> None:
        """See whether the first that waits in *library* may go."""
        if library in self._blocked:
            return
        if not (queue := self._queues.get(library)):
            self._queues.pop(library, None)
            self.more = self.more or library in self._cut
        elif queue[0].forced or queue[0].due_at <= now:
            self._ready[library] = None
        else:
            self.next_due = earlier(self.next_due, queue[0].due_at)


def _largest(deliveries: Sequence[Delivery]) -> int:
    return max((len(delivery.body) for delivery in deliveries), default=0)


def earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min(one, other) if one and other else one or other
