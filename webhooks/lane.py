"""Run one endpoint's line of deliveries: in its order, at its rate, no more at once than it takes.

   ┌────────────────────────────────────────────────────────────────────────────────────────────┐
   └▶ reload if changed ─▶ refill when few are left ─▶ start what may go ─▶ wait for news or time ┘

each worker:  take ─▶ send ─▶ settle ─▶ take the next, until there is none that may go
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from msgspec.structs import replace

from webhooks.deliveries import Attempt, Delivery, Settlement
from webhooks.endpoints import Endpoint, Ordering
from webhooks.gate import Gate
from webhooks.line import FreeLine, LibraryLine
from webhooks.live_first import LiveFirst
from webhooks.ownership import Hold
from webhooks.rules import Workshop
from webhooks.verdicts import Delivered, Retry

_log = structlog.get_logger(__name__)

SMALLEST_WINDOW = 16
LARGEST_WINDOW = 64
WINDOW_BYTES = 2**20
"""A lane holds about so many deliveries in memory, by count and by size, whatever its backlog."""
STUCK_AFTER = timedelta(milliseconds=100)
MOST_UNSETTLED = 1_024
"""With as many waiting for the store nothing more is sent: after a crash all of it would be sent again."""


class Lane:
    """`run` it: it returns when it is stopped, its endpoint is gone, or it had nothing to do for a while.

    *hold* is what it is held by, where other processes use the store.
    """

    def __init__(self, endpoint_id: str, shop: Workshop, hold: Hold | None = None) -> None:
        self.endpoint_id = endpoint_id
        self.in_flight = 0
        self.is_woken = False
        """Whether there was news that it has not yet looked at."""
        self._shop = shop
        self._hold = hold
        self._gate: Gate | None = None
        self._line = self._a_line(FreeLine)
        self._event = asyncio.Event()
        self._workers: set[asyncio.Task[None]] = set()
        self._has_changed = True
        self._is_stopping = False
        self._is_leaving = False
        self._window = SMALLEST_WINDOW
        self._left_some = False
        self._looked_at: datetime | None = None
        self._rests_until: datetime | None = None
        self._idle_since: datetime | None = None
        self._moved_at = shop.clock.now()
        """When an attempt last began or ended."""
        self._refused: list[tuple[datetime, Delivery]] = []

    @property
    def looks_idle(self) -> bool:
        return not (self.in_flight or self._line.waiting or self._line.out)

    @property
    def is_stuck(self) -> bool:
        """Whether it has been full for a while: with attempts that do not end, or for want of a chance to begin one."""
        return self._is_full() and self._shop.clock.now() - self._moved_at >= STUCK_AFTER

    def wake(self) -> None:
        """There may be new deliveries."""
        self.is_woken = True
        self._line.more = True
        self._event.set()

    def offer(self, fresh: Sequence[Delivery]) -> None:
        """*fresh* have just been stored for it. What may go starts at once; a lane that is full is left asleep, so that
        receivers that never answer cost those that do next to nothing."""
        self._line.offer(fresh, room=self._most_waiting() - self._line.waiting)
        self._start_workers()
        if not self._is_full():
            self._event.set()

    def change(self) -> None:
        """Its endpoint or something that it owes was changed by somebody: all of it is to be read again."""
        self._has_changed = True
        self.wake()

    def stop(self) -> None:
        """Start nothing more, and end with the attempts in flight."""
        self._is_stopping = True
        self._event.set()

    def leave(self) -> None:
        """The same, and end only once they are settled: another process goes on where this one has stopped."""
        self._is_leaving = True
        self.stop()

    def nudge(self) -> None:
        self._event.set()

    async def run(self) -> None:
        try:
            while True:
                self._event.clear()
                now = self._shop.clock.now()
                self._release_refused(now)
                if self._has_changed and not self._is_resting(now):
                    await self._reload()
                if self._wants_refill(now):
                    await self._refill(now)
                self._start_workers()
                if self._is_over(now):
                    return
                # By the time at which this look began: a moment that has come since then is next, and not past.
                await self._shop.clock.wait(self._event, self._next_moment(now))
        finally:
            self._shop.budget.leave(self)
            for worker in (late := [worker for worker in self._workers if not worker.done()]):
                worker.cancel()
            if late:
                await asyncio.wait(late)

    # --- what there is to send ---------------------------------------------------------------------------------------

    async def _reload(self) -> None:
        self._has_changed = False
        try:
            found = await self._shop.store.endpoint(self.endpoint_id)
        except Exception:  # noqa: BLE001 - whatever a store raises, it is asked again
            self._rest("lane.read_failed")
            self._has_changed = True
            return
        self._line.forget()
        self._looked_at = None
        if found is None:
            self._gate = None
        elif self._gate is None:
            rules = self._shop.rules
            self._gate = Gate(*found, max_age=rules.max_age, disable_after=rules.disable_after)
            if self._hold is not None and self._hold.quiet_since is not None:
                self._gate.pace.spend(self._hold.quiet_since)
        else:
            self._gate.change(*found)

    def _wants_refill(self, now: datetime) -> bool:
        line, gate = self._line, self._gate
        if gate is None or not gate.is_active or self._is_stopping or self._is_resting(now):
            return False
        if not self._has_right_line(gate):
            return False
        if line.next_due is not None and line.next_due <= now:
            line.more, line.next_due = True, None
        if not self._line.more:
            return False
        if gate.limit(now) > 0:
            return self._needs_more()
        return self.is_woken and (self._looked_at is None or now >= self._looked_at + self._shop.rules.look_again)

    def _needs_more(self) -> bool:
        return self._line.more and self._line.waiting <= self._most_waiting() // 4

    def _has_right_line(self, gate: Gate) -> bool:
        """Make the line one of the order that the endpoint wants, as soon as nothing of the other is out."""
        kind = LibraryLine if gate.endpoint.ordering is Ordering.LIBRARY else FreeLine
        if self._line.kind is kind:
            return True
        if self._line.out:
            return False
        self._line = self._a_line(kind)
        return True

    def _a_line(self, kind: type[FreeLine] | type[LibraryLine]) -> LiveFirst:
        quiet_since = None if self._hold is None else self._hold.quiet_since
        shop = self._shop
        return LiveFirst(kind, shop.store, self.endpoint_id, now=shop.clock.now, quiet_since=quiet_since)

    async def _refill(self, now: datetime) -> None:
        self.is_woken = False
        if self._left_some and self._looked_at is not None and now - self._looked_at < timedelta(seconds=1):
            self._window = min(self._window * 2, LARGEST_WINDOW)
        self._looked_at = now
        try:
            await self._line.refill(now, room=max(1, self._most_waiting() - self._line.waiting))
            self._left_some = self._line.more
        except Exception:  # noqa: BLE001 - whatever a store raises, it is asked again
            self._rest("lane.read_failed")

    def _most_waiting(self) -> int:
        room = self._window
        if self._gate is not None:
            room = max(room, 2 * self._gate.endpoint.max_in_flight)
            if (rate := self._gate.endpoint.max_per_second) is not None:
                room = min(room, max(2, round(5 * rate)))
        if self._line.largest:
            room = min(room, max(2, WINDOW_BYTES // self._line.largest))
        return room

    def _rest(self, why: str) -> None:
        _log.exception(why, endpoint=self.endpoint_id)
        self._rests_until = self._shop.clock.now() + self._shop.rules.pause

    def _is_resting(self, now: datetime) -> bool:
        return self._shop.settler.is_away or (self._rests_until is not None and now < self._rests_until)

    # --- sending it --------------------------------------------------------------------------------------------------

    def _start_workers(self) -> None:
        while (delivery := self._take()) is not None:
            worker = asyncio.create_task(self._work(delivery))
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        self._shop.budget.settle(self)

    def _is_full(self) -> bool:
        """Whether nothing can start before an attempt ends or its receiver gets another chance, of which it hears."""
        return self._gate is not None and self.in_flight >= self._gate.limit(self._shop.clock.now())

    def _take(self) -> Delivery | None:
        """The next delivery that may be sent now, with a place to send it from."""
        gate, line, now = self._gate, self._line, self._shop.clock.now()
        if gate is None or not gate.is_active or self._is_stopping or self._has_changed or not line.waiting:
            return None
        if self.in_flight >= gate.endpoint.max_in_flight or line.out >= MOST_UNSETTLED or self._is_resting(now):
            return None
        only_forced = self.in_flight >= gate.limit(now)
        if not line.has_next(only_forced=only_forced) or gate.pace.next_at(now) > now or not self._may_send():
            return None
        if not self._shop.budget.acquire(self):
            return None
        gate.pace.spend(now)
        self.in_flight += 1
        self._moved_at = now
        return line.take(only_forced=only_forced)

    def _may_send(self) -> bool:
        holder = self._shop.holder
        return holder is None or holder.may_send

    async def _work(self, first: Delivery) -> None:
        delivery: Delivery | None = first
        while delivery is not None:
            try:
                await self._deliver(delivery)
            except Exception:  # noqa: BLE001 - a fault of ours with one delivery must not stop its neighbours
                self._rest("delivery.failed")
                now = self._shop.clock.now()
                self._line.release(delivery, now, due_again=now + self._shop.rules.pause)
            finally:
                self.in_flight -= 1
                self._moved_at = self._shop.clock.now()
                self._shop.budget.release(self)
            delivery = self._take()
            if self._needs_more():
                self._event.set()
        self._event.set()

    async def _deliver(self, delivery: Delivery) -> None:
        gate = self._gate
        if gate is None or not self._may_send():  # deleted since it was taken, or it has slept through its lease
            self._line.release(delivery, self._shop.clock.now(), due_again=None)
            return
        settlement = gate.expire(delivery, self._shop.clock.now())
        if settlement is None:
            attempt = await self._attempt(delivery, gate.endpoint)
            now = self._shop.clock.now()
            settlement = gate.settle(delivery, attempt, now=now, rand=self._shop.rand)
            _report(settlement, attempt)
            if isinstance(settlement.verdict, Delivered):
                self._line.received(delivery, now)
        if self._hold is not None:
            settlement = replace(settlement, term=self._hold.term)
        self._shop.settler.put(settlement, self._settled)

    async def _attempt(self, delivery: Delivery, endpoint: Endpoint) -> Attempt:
        started_at = self._shop.clock.now()
        try:
            return await self._shop.sender.send(delivery, endpoint)
        except Exception:  # noqa: BLE001 - a fault of ours: it is an attempt that failed, or it would be the next for ever
            _log.exception("delivery.failed", delivery=delivery.id, endpoint=endpoint.id)
            duration = self._shop.clock.now() - started_at
            number = delivery.attempt_count + 1
            return Attempt(number=number, started_at=started_at, duration=duration, error="internal error")

    def _settled(self, settlement: Settlement, is_stored: bool) -> None:  # noqa: FBT001 - the one fact it is told
        now = self._shop.clock.now()
        verdict = settlement.verdict
        if is_stored:
            due_again = verdict.at if isinstance(verdict, Retry) else None
            self._line.release(settlement.delivery, now, due_again=due_again)
        else:
            self._refused.append((now + self._shop.rules.send_again, settlement.delivery))
        self._event.set()

    def _release_refused(self, now: datetime) -> None:
        while self._refused and self._refused[0][0] <= now:
            _, delivery = self._refused.pop(0)
            self._line.release(delivery, now, due_again=now)

    # --- until when --------------------------------------------------------------------------------------------------

    def _next_moment(self, now: datetime) -> datetime | None:
        """When there is something to do, should nothing happen before."""
        moments = [self._rests_until, self._idle_until(), *[moment for moment, _ in self._refused[:1]]]
        if self._shop.settler.is_away:
            moments.append(now + self._shop.rules.pause)
        gate, line = self._gate, self._line
        if gate is not None and gate.is_active and not self._is_stopping:
            opens_at = gate.opens_at(now)
            moments += [opens_at, gate.pace.next_at(now), line.paced_until(now)]
            moments.append(max(line.next_due, opens_at or now) if line.next_due is not None else None)
            if self.is_woken and self._looked_at is not None:
                moments.append(self._looked_at + self._shop.rules.look_again)
        return min((moment for moment in moments if moment is not None and moment > now), default=None)

    def _idle_until(self) -> datetime | None:
        return None if self._idle_since is None else self._idle_since + self._shop.rules.linger

    def _is_over(self, now: datetime) -> bool:
        if self._is_leaving:
            return self._line.out == len(self._refused)
        if self._is_stopping:
            return self.in_flight == 0
        if self.in_flight or self._line.out or self._has_changed:
            self._idle_since = None
            return False
        if self._gate is None:
            return True
        self._idle_since = self._idle_since or now
        # Rates are known here alone: a lane that ended too early would start over, and be too fast.
        is_paced = self._gate.pace.next_at(now) > now or self._line.paced_until(now) is not None
        return now >= self._idle_since + self._shop.rules.linger and not is_paced


def _report(settlement: Settlement, attempt: Attempt) -> None:
    _log.info(
        "delivery.attempted",
        delivery=settlement.delivery.id,
        endpoint=settlement.delivery.endpoint_id,
        number=attempt.number,
        status=attempt.status_code,
        error=attempt.error,
        verdict=type(settlement.verdict).__name__.lower(),
        duration_ms=round(attempt.duration.total_seconds() * 1000, 1),
    )
