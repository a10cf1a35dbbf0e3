"""The fan-out: from each event to the deliveries that it owes, with a cursor that moves in the same transaction.

    log ──▶ who wants it? ──▶ deliveries + cursor, one commit ──▶ offered to their lanes
                  └─ an event that comes alone: those of lanes that wait for it first, the others in a second commit

Changes of subscriptions are events of the same log, so each is applied exactly where it happened.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import msgspec
import structlog

from gateway.errors import StorageUnavailable
from gateway.events import GATEWAY_LIBRARY, GATEWAY_PREFIX, Cursor, LoggedEvent, Page
from gateway.filters import Candidate, Filter, Matcher
from gateway.ports import EventLog, FanoutPlace, FanoutStore
from gateway.subscriptions import Interest
from webhooks.deliveries import Delivery

LOOK_SECONDS = 1.0
"""How long a lost announcement may go unnoticed."""
DELIVERIES_AT_ONCE = 2_000
"""One commit creates about so many, so that publishers never wait long behind it."""
EVENTS_AT_ONCE = 1_000
TESTS_BEFORE_YIELD = 5_000
WORTH_A_COMMIT = 8
"""Deliveries for lanes that are busy: so many are not made in one commit with those for lanes that are not."""
PAGES_KEPT = 64
"""Announced pages kept for a fan-out that is briefly behind; further behind it reads the log."""

_logger = structlog.get_logger(__name__)


class InterestSource(Protocol):
    """As much of the `SubscriptionStore` as is needed here."""

    async def interests(self, at: Cursor) -> Sequence[Interest]:
        """Of every subscription the interest in force for events after *at*."""


class Fanout:
    """Creates deliveries for `subscriptions` as the log grows; *offer* is given what was created, by subscription.

    *is_busy* tells whether a subscription's lane could not send a delivery now if it had one.
    """

    def __init__(
        self,
        log: EventLog,
        store: FanoutStore,
        subscriptions: InterestSource,
        *,
        offer: Callable[[Mapping[str, Sequence[Delivery]]], None],
        is_busy: Callable[[str], bool] = lambda _: False,
        look_seconds: float = LOOK_SECONDS,
        deliveries_at_once: int = DELIVERIES_AT_ONCE,
    ) -> None:
        self._log = log
        self._store = store
        self._subscriptions = subscriptions
        self._offer = offer
        self._is_busy = is_busy
        self._look_seconds = look_seconds
        self._deliveries_at_once = deliveries_at_once
        self._news = asyncio.Event()
        self._pages: deque[Page] = deque(maxlen=PAGES_KEPT)
        self._place = FanoutPlace(cursor=Cursor(0))
        self._interests = Interests(())

    @property
    def cursor(self) -> Cursor:
        """Up to where events have their deliveries."""
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
                while await self._step(self._interests):
                    pass
            except StorageUnavailable as error:
                _logger.warning("fanout.waiting", cursor=self.cursor, error=error.detail)
                await asyncio.sleep(self._look_seconds)

    async def _step(self, interests: "Interests") -> bool:
        """Serve one page. False: another process serves the log, and what is known of it is stale."""
        self._news.clear()
        page = await self._next()
        if not page.events:
            try:
                async with asyncio.timeout(self._look_seconds):
                    await self._news.wait()
            except TimeoutError:
                pass
            return True
        wanted: list[tuple[LoggedEvent, Sequence[str]]] = []
        owed = tests = 0
        for event in page.events:
            interests.apply(event)
            ids = [interest.subscription_id for interest in interests.of(event)]
            if self._place.made and event.cursor == self.cursor + 1:  # begun, and not ended
                ids = [id_ for id_ in ids if id_ not in self._place.made]
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
        """The page after the cursor: what was announced since, joined for one commit, or else what the log has."""
        events: list[LoggedEvent] = []
        last = self.cursor
        while self._pages and len(events) < EVENTS_AT_ONCE:
            if self._pages[0].after > last:  # one was lost, or this is the first sight of a log that was left behind
                self._pages.clear()
            elif (page := self._pages.popleft()).after == last:
                events += page.events
                last = page.last
        return Page(after=self.cursor, events=tuple(events)) if events else await self._log.read(self.cursor)

    async def _advance(self, to: Cursor, wanted: Sequence[tuple[LoggedEvent, Sequence[str]]]) -> bool:
        if to == self.cursor:
            return True
        if len(wanted) == 1:
            [(event, ids)] = wanted
            busy = [id_ for id_ in ids if self._is_busy(id_)]
            if WORTH_A_COMMIT <= len(busy) < len(ids) and event.cursor == self.cursor + 1:
                if not await self._begin(event, [id_ for id_ in ids if id_ not in busy]):
                    return False
                wanted = [(event, busy)]
        created = await self._store.advance(self._place, to, wanted)
        return self._has_come_to(FanoutPlace(cursor=to), created)

    async def _begin(self, event: LoggedEvent, ids: Sequence[str]) -> bool:
        """Let those that can send it at once not wait for the others."""
        created = await self._store.begin(self._place, event, ids)
        return self._has_come_to(replace(self._place, made=self._place.made.union(ids)), created)

    def _has_come_to(self, place: FanoutPlace, created: Mapping[str, Sequence[Delivery]] | None) -> bool:
        if created is None:
            return False
        self._place = place
        if created:
            self._offer(created)
        return True


class Interests:
    """Who wants what, found by library, kept true by the notices in the log."""

    def __init__(self, interests: Sequence[Interest]) -> None:
        self._by_id: dict[str, tuple[Interest, Matcher]] = {}
        self._anywhere: dict[str, tuple[Interest, Matcher]] = {}
        self._by_library: dict[str, dict[str, tuple[Interest, Matcher]]] = {}
        for interest in interests:
            self._put(interest)

    def __len__(self) -> int:
        return len(self._by_id)

    def of(self, event: LoggedEvent) -> Iterator[Interest]:
        """Those that *event* is for."""
        candidate = Candidate(event)
        for some in (self._anywhere, self._by_library.get(event.library_id)):
            for interest, matcher in (some or {}).values():
                if event.cursor > interest.since and matcher.matches(candidate):
                    yield interest

    def apply(self, event: LoggedEvent) -> None:
        """If *event* is a notice that a subscription has changed, know it from here on."""
        if not event.type.startswith(SUBSCRIPTION_NOTICES):
            return
        notice = msgspec.json.decode(event.data, type=Notice)
        known = self._by_id.get(notice.subscription_id)
        self._drop(notice.subscription_id)
        if event.type != DELETED:
            self._put(
                Interest(
                    subscription_id=notice.subscription_id,
                    filter=Filter(_names(notice.library_ids), _names(notice.types), notice.filter),
                    libraries=event.audience,
                    since=known[0].since if known else event.cursor,
                )
            )

    def _put(self, interest: Interest) -> None:
        entry = (interest, Matcher(interest.filter, interest.libraries))
        self._by_id[interest.subscription_id] = entry
        for place in self._places(entry[1]):
            place[interest.subscription_id] = entry

    def _drop(self, subscription_id: str) -> None:
        if entry := self._by_id.pop(subscription_id, None):
            for place in self._places(entry[1]):
                del place[subscription_id]

    def _places(self, matcher: Matcher) -> Iterator[dict[str, tuple[Interest, Matcher]]]:
        if matcher.libraries is None:
            yield self._anywhere
            return
        own = {GATEWAY_LIBRARY} if matcher.filter.names_gateways_own else set()
        for library_id in matcher.libraries | own:
            yield self._by_library.setdefault(library_id, {})


class Notice(msgspec.Struct):
    """What the fan-out reads in a notice about a subscription."""

    subscription_id: str
    library_ids: list[str] | None = None
    types: list[str] | None = None
    filter: str | None = None


SUBSCRIPTION_NOTICES = f"{GATEWAY_PREFIX}subscription."
DELETED = f"{SUBSCRIPTION_NOTICES}deleted"


def _names(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
