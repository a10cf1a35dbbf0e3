"""The fan-out: from each event to the deliveries that it owes; its place in the log moves in the same transaction.

    log ──▶ who wants it? ──▶ deliveries + place, one commit ──▶ offered to their lanes
                  └─ those of lanes that are stuck are put off: made soon after, many in one commit

Changes of subscriptions are events of the same log, so each is applied exactly where it happened.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from gateway.errors import StorageUnavailable
from gateway.events import Cursor, LoggedEvent, Page
from gateway.fanout.interests import Interests
from gateway.fanout.put_off import PUT_OFF_SECONDS, PutOff
from gateway.ports.fanout import FanoutPlace, FanoutStore, Wanted
from gateway.ports.log import EventLog
from gateway.subscriptions import Interest
from webhooks.deliveries import Delivery

LOOK_SECONDS = 1.0
"""How long a lost announcement may go unnoticed."""
DELIVERIES_AT_ONCE = 2_000
"""One commit creates about so many, so that publishers never wait long behind it."""
EVENTS_AT_ONCE = 1_000
TESTS_BEFORE_YIELD = 5_000
PAGES_KEPT = 64
"""Announced pages kept for a fan-out that is briefly behind; further behind it reads the log."""

_logger = structlog.get_logger(__name__)


class InterestSource(Protocol):
    """As much of the `SubscriptionStore` as is needed here."""

    async def interests(self, at: Cursor) -> Sequence[Interest]:
        """Of every subscription the interest in force for events after *at*."""


class Fanout:
    """Creates deliveries for `subscriptions` as the log grows; *offer* is given what was created, by subscription.

    *is_stuck* tells whether a subscription's lane has been unable to start anything for a while: a delivery for it can
    as well be made a little later.
    """

    def __init__(
        self,
        log: EventLog,
        store: FanoutStore,
        subscriptions: InterestSource,
        *,
        offer: Callable[[Mapping[str, Sequence[Delivery]]], None],
        is_stuck: Callable[[str], bool] = lambda _: False,
        look_seconds: float = LOOK_SECONDS,
        put_off_seconds: float = PUT_OFF_SECONDS,
        deliveries_at_once: int = DELIVERIES_AT_ONCE,
    ) -> None:
        self._log = log
        self._store = store
        self._subscriptions = subscriptions
        self._offer = offer
        self._is_stuck = is_stuck
        self._look_seconds = look_seconds
        self._deliveries_at_once = deliveries_at_once
        self._news = asyncio.Event()
        self._pages: deque[Page] = deque(maxlen=PAGES_KEPT)
        self._place = FanoutPlace(cursor=Cursor(0))
        self._interests = Interests(())
        self._seen = Cursor(0)
        self._has_seen_all = False
        """Whether there is nothing beyond in the log but what has been announced, or is about to be."""
        self._put_off = PutOff(put_off_seconds)

    @property
    def cursor(self) -> Cursor:
        """Up to where events have all their deliveries."""
        return self._place.cursor

    @property
    def subscriptions(self) -> int:
        """How many there are, paused ones too."""
        return len(self._interests)

    def feed(self, page: Page) -> None:
        """*page* is in the log. It may save a read; losing it costs a second at most."""
        if page.events:
            self._pages.append(page)
            self._news.set()

    async def run(self) -> None:
        """Follow the log until cancelled, whatever the database does meanwhile."""
        while True:
            try:
                self._place = await self._store.place()
                self._interests = Interests(await self._subscriptions.interests(self.cursor))
                self._seen, self._has_seen_all = self.cursor, False
                self._put_off.clear()
                while await self._step(self._interests):
                    pass
            except StorageUnavailable as error:
                _logger.warning("fanout.waiting", cursor=self.cursor, error=error.detail)
                await asyncio.sleep(self._look_seconds)

    async def _step(self, interests: Interests) -> bool:
        """Serve one page. False: another process serves the log, and what is known of it is stale."""
        self._news.clear()
        page = await self._next()
        if not page.events:
            return await self._wait()
        wanted: list[Wanted] = []
        owed = tests = 0
        for event in page.events:
            interests.apply(event)
            ids = [interest.subscription_id for interest in interests.of(event)]
            if event.cursor <= self._place.ahead:  # seen before a restart: only those that were put off lack theirs
                ids = [id_ for id_ in ids if self._place.behind.get(id_, event.cursor) < event.cursor]
            tests += len(interests)
            if ids:
                wanted.append((event, ids))
                owed += len(ids)
            if owed >= self._deliveries_at_once:
                if not await self._advance(event.cursor, wanted):
                    return False
                wanted, owed = [], 0
            if tests >= TESTS_BEFORE_YIELD:
                tests = 0
                await asyncio.sleep(0)
        return await self._advance(page.last, wanted)

    async def _next(self) -> Page:
        """The page after what was seen: what was announced since, joined for one commit, or else what the log has."""
        events: list[LoggedEvent] = []
        last = self._seen
        while self._pages and len(events) < EVENTS_AT_ONCE:
            if self._pages[0].after > last:  # one was lost, or this is the first sight of a log that was left behind
                self._pages.clear()
                self._has_seen_all = False
            elif (page := self._pages.popleft()).after == last:
                events += page.events
                last = page.last
        if events or self._has_seen_all:
            return Page(after=self._seen, events=tuple(events))
        page = await self._log.read(self._seen)
        self._has_seen_all = not page.events
        return page

    async def _wait(self) -> bool:
        """Until there is news, or it is time to make what was put off."""
        try:
            async with asyncio.timeout(self._put_off.seconds_left(self._look_seconds)):
                await self._news.wait()
        except TimeoutError:
            if self._put_off.is_due:
                return await self._catch_up()
            self._has_seen_all = False  # unless something was lost
        return True

    async def _advance(self, to: Cursor, wanted: Sequence[Wanted]) -> bool:
        """Make what *wanted* says of the events up to *to*, but for what can be put off."""
        if to == self._seen:
            return True
        is_new = self._seen >= self._place.ahead  # else it is on its way to where it was before a restart
        self._seen = to
        at_once = self._put_off.sift(wanted, is_stuck=self._is_stuck) if is_new else wanted
        if self._put_off.is_due or not (is_new and self._put_off.behind):
            return await self._catch_up(at_once)
        ahead = replace(self._place, ahead=to, behind=dict(self._put_off.behind))
        return not at_once or await self._move(ahead, at_once)

    async def _catch_up(self, wanted: Sequence[Wanted] = ()) -> bool:
        """Make all that was put off, and *wanted*: nobody is behind then."""
        if self._seen < self._place.ahead:
            place = replace(self._place, cursor=self._seen)
        else:
            place = FanoutPlace(cursor=self._seen)
        return await self._move(place, [*self._put_off.take(), *wanted])

    async def _move(self, place: FanoutPlace, wanted: Sequence[Wanted]) -> bool:
        created = await self._store.advance(self._place, place, wanted)
        if created is None:
            return False
        self._place = place
        if created:
            self._offer(created)
        return True
