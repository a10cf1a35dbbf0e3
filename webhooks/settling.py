"""Store what attempts came to, in batches: while one is being committed, and for a little after, the next collects.

put ──▶ queue ──batch──▶ store ──▶ done(stored)
                   │ refused again and again
                   ├── and so is each alone: the store is away; wait, and lanes with it
                   └── some go alone: the others are given back, done(not stored), to be sent again later
"""

import asyncio
from collections.abc import Callable, Container, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from tenacity import AsyncRetrying, RetryCallState, stop_after_attempt, wait_exponential_jitter

from webhooks.clock import Clock
from webhooks.deliveries import Settlement

LARGEST_BATCH = 32
"""Publishers wait while it is stored; larger ones take hardly less a settlement."""
TRIES = 4
MOST_REFUSED = 5
"""When so many alone are refused, and none was taken, it is the store and not they."""
REST = 2
"""So many times as long as a batch has taken the next one collects. Nobody waits for it, but publishers wait for their
turn with the store: where that is quick a rest is nothing; where it is busy, batches are fewer and larger."""
LONGEST_REST = timedelta(milliseconds=30)
GIVE_BACK_AFTER = timedelta(seconds=30)
_AWAY_SECONDS = 3.0

_log = structlog.get_logger(__name__)

Done = Callable[[Settlement, bool], None]
"""Is told of a settlement whether it was stored."""


class Settles(Protocol):
    async def settle(self, settlements: Sequence[Settlement]) -> None: ...


class Settler:
    """One writer for all lanes. `run` it; `put` never waits."""

    def __init__(self, store: Settles, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._queue: list[tuple[Settlement, Done]] = []
        self._event = asyncio.Event()
        self._closing = asyncio.Event()
        self._away_since: datetime | None = None

    @property
    def is_away(self) -> bool:
        """The store takes nothing now: whatever is sent meanwhile would be sent again after a crash."""
        return self._away_since is not None

    def put(self, settlement: Settlement, done: Done) -> None:
        self._queue.append((settlement, done))
        self._event.set()

    async def run(self) -> None:
        """Store what is put, until it is closed and all is stored, or refused once more."""
        while self._queue or not self._closing.is_set():
            await self._event.wait()
            self._event.clear()
            while self._queue:
                began_at = self._clock.now()
                if not await self._settle(self._queue[:LARGEST_BATCH]):
                    if self._closing.is_set():
                        return
                    await self._sleep(_AWAY_SECONDS)
                elif len(self._queue) < LARGEST_BATCH:
                    await self._rest(began_at)

    def close(self) -> None:
        """Store what is there, then end. What the store does not take now is still pending in it."""
        self._closing.set()
        self._event.set()

    async def _settle(self, batch: Sequence[tuple[Settlement, Done]]) -> bool:
        """Take *batch* off the queue, stored or given back. False: the store is away, and it stays."""
        settlements = [settlement for settlement, _ in batch]
        refused: Container[int] = ()
        if await self._is_stored(settlements):
            self._away_since = None
        elif self._closing.is_set():
            return False
        else:
            tried, refused = await self._each_alone(settlements)
            if len(refused) < tried:
                self._away_since = None
            elif not self._has_been_away_for_long():
                return False
            batch = batch[:tried]
        del self._queue[: len(batch)]
        if self.is_away:
            # With nothing left to try, only something new can show whether the store is back.
            self._away_since = self._clock.now() if self._queue else None
        for settlement, done in batch:
            done(settlement, id(settlement) not in refused)
        return True

    async def _each_alone(self, settlements: Sequence[Settlement]) -> tuple[int, set[int]]:
        """Store each alone, so that one that the store refuses takes no neighbours with it.

        How many were tried, and which were refused. It stops early when none of the first few was taken: then it is
        the store, and not they.
        """
        refused: set[int] = set()
        for tried, settlement in enumerate(settlements, start=1):
            if not await self._is_stored([settlement], tries=1):
                refused.add(id(settlement))
            if len(refused) == tried == MOST_REFUSED:
                return tried, refused
        return len(settlements), refused

    def _has_been_away_for_long(self) -> bool:
        """Whether to take it for refused after all what has been refused all the time: it might be at fault, and with
        lanes at rest nothing else would come to show it."""
        now = self._clock.now()
        self._away_since = self._away_since or now
        return now - self._away_since >= GIVE_BACK_AFTER

    async def _is_stored(self, settlements: Sequence[Settlement], *, tries: int = TRIES) -> bool:
        retrying = AsyncRetrying(
            sleep=self._sleep,
            stop=lambda state: self._closing.is_set() or stop_after_attempt(tries)(state),
            wait=wait_exponential_jitter(multiplier=0.1, jitter=0.1, max=2),
            before_sleep=_log_failure,
            reraise=True,
        )
        try:
            await retrying(self._store.settle, settlements)
        except Exception:  # noqa: BLE001 - whatever a store raises, the deliveries are still pending in it
            _log.exception("delivery.settle_failed", deliveries=[one.delivery.id for one in settlements[:10]])
            return False
        return True

    async def _rest(self, began_at: datetime) -> None:
        now = self._clock.now()
        if (took := now - began_at) > timedelta(0):
            await self._clock.wait(self._closing, now + min(REST * took, LONGEST_REST))

    async def _sleep(self, seconds: float) -> None:
        await self._clock.wait(self._closing, self._clock.now() + timedelta(seconds=seconds))


def _log_failure(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    _log.warning("delivery.settle_retried", attempt=state.attempt_number, error=repr(error))
