"""Live work and replays in one line: a replayed delivery goes only when no live one may.

    live ──────┐
               ├─ take ─▶ out        what a person forced, then live work, then what replays made
    replayed ──┘
       └─ each replay's first attempts at its own pace

While the store may have live deliveries that are not here, replayed ones wait: those would go before them. Each of the
two is a line of its own, so that in an ordered lane neither holds up a library of the other.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from webhooks.deliveries import Delivery
from webhooks.line import FreeLine, LibraryLine, Line, earlier
from webhooks.pace import Pace
from webhooks.ports import DeliveryStore


class LiveFirst:
    """A `Line` of two of *kind*. *now* answers the present moment; others may have sent until *quiet_since*."""

    def __init__(
        self,
        kind: type[FreeLine] | type[LibraryLine],
        store: DeliveryStore,
        endpoint_id: str,
        *,
        now: Callable[[], datetime],
        quiet_since: datetime | None = None,
    ) -> None:
        self.kind = kind
        self._live = kind(store, endpoint_id)
        self._replayed = kind(store, endpoint_id, replayed=True)
        self._now = now
        self._quiet_since = quiet_since
        self._paces: dict[str | None, Pace] = {}
        self._is_reading_live = False
        self._is_news_of_any = True
        """Somebody said that there may be something, live or not: a person may have forced what a replay made."""

    @property
    def more(self) -> bool:
        return self._live.more or self._replayed.more

    @more.setter
    def more(self, value: bool) -> None:
        self._live.more = self._replayed.more = self._is_news_of_any = value

    @property
    def next_due(self) -> datetime | None:
        return earlier(self._live.next_due, self._replayed.next_due)

    @next_due.setter
    def next_due(self, value: datetime | None) -> None:
        self._live.next_due = self._replayed.next_due = value

    @property
    def largest(self) -> int:
        return max(self._live.largest, self._replayed.largest)

    @property
    def waiting(self) -> int:
        return self._live.waiting if self._is_live_unread else self._live.waiting + self._replayed.waiting

    @property
    def out(self) -> int:
        return self._live.out + self._replayed.out

    def paced_until(self, now: datetime) -> datetime | None:
        """When a replay may go on that has to wait for its turn now; None: none has to."""
        moments = (pace.next_at(now) for pace in self._paces.values())
        return min((moment for moment in moments if moment > now), default=None)

    async def refill(self, now: datetime, *, room: int) -> None:
        if self._live.more:
            self._is_reading_live = True
            try:
                await self._live.refill(now, room=room)
            finally:
                self._is_reading_live = False
        is_their_turn = not (self._live.more or self._live.waiting)
        if self._replayed.more and (is_their_turn or self._is_news_of_any):
            await self._replayed.refill(now, room=room)
            self._paces = {id_: pace for id_, pace in self._paces.items() if pace.next_at(now) > now}
        self._is_news_of_any = False

    def has_next(self, *, only_forced: bool) -> bool:
        return self._next(only_forced=only_forced) is not None

    def peek(self, *, only_forced: bool) -> Delivery:
        return self._line(only_forced=only_forced).peek(only_forced=only_forced)

    def take(self, *, only_forced: bool) -> Delivery:
        line = self._line(only_forced=only_forced)
        delivery = line.take(only_forced=only_forced)
        if line is self._replayed and _is_paced(delivery):
            self._pace_of(delivery).spend(self._now())
        return delivery

    def received(self, delivery: Delivery, now: datetime) -> None:
        self._holder(delivery).received(delivery, now)

    def release(self, delivery: Delivery, now: datetime, *, due_again: datetime | None) -> None:
        self._holder(delivery).release(delivery, now, due_again=due_again)

    def offer(self, fresh: Sequence[Delivery], *, room: int) -> None:
        live = [delivery for delivery in fresh if not delivery.replayed]
        if live:
            # Replayed ones that wait take up no room of theirs.
            self._live.offer(live, room=room if self._is_live_unread else room + self._replayed.waiting)
        if len(live) < len(fresh):
            replayed = [delivery for delivery in fresh if delivery.replayed]
            self._replayed.offer(replayed, room=room)

    def forget(self) -> None:
        self._live.forget()
        self._replayed.forget()
        self._is_news_of_any = True

    @property
    def _is_live_unread(self) -> bool:
        """Whether the store may have live deliveries to send that are not here."""
        return self._live.more or self._is_reading_live

    def _next(self, *, only_forced: bool) -> Line | None:
        """The one of the two whose turn it is."""
        replayed = self._replayed if self._replayed.waiting else None
        if replayed is not None and replayed.has_next(only_forced=True):
            return replayed
        if self._live.has_next(only_forced=only_forced):
            return self._live
        if replayed is None or only_forced or self._is_live_unread:
            return None
        return replayed if self._is_in_pace(replayed.peek(only_forced=False)) else None

    def _line(self, *, only_forced: bool) -> Line:
        line = self._next(only_forced=only_forced)
        if line is None:
            raise LookupError("nothing may go now")
        return line

    def _holder(self, delivery: Delivery) -> Line:
        return self._replayed if delivery.replayed else self._live

    def _is_in_pace(self, delivery: Delivery) -> bool:
        now = self._now()
        return not _is_paced(delivery) or self._pace_of(delivery).next_at(now) <= now

    def _pace_of(self, delivery: Delivery) -> Pace:
        if (pace := self._paces.get(delivery.replay_id)) is None:
            pace = self._paces[delivery.replay_id] = Pace(delivery.replay_per_second)
            if self._quiet_since is not None:
                pace.spend(self._quiet_since)
        return pace


def _is_paced(delivery: Delivery) -> bool:
    """Its first attempt alone: when it is tried again its schedule says."""
    return delivery.replay_per_second is not None and delivery.first_attempt_at is None and not delivery.forced
