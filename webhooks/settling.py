"""Store what attempts came to, in batches: while one batch is being committed, the next collects.

put ──▶ queue ──batch──▶ store ──▶ done(stored)
                   │ refused again and again
                   ├── and so is each alone: the store is away; wait, and lanes with it
                   └── some go alone: the others are given back, done(not stored), to be sent again later
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol

import structlog
from tenacity import AsyncRetrying, RetryCallState, stop_after_attempt, wait_exponential_jitter

from webhooks.clock import Clock
from webhooks.deliveries import Settlement

LARGEST_BATCH = 500
TRIES = 4
_AWAY_SECONDS = 3.0

_log = structlog.get_logger(__name__)

Done = Callable[[Settlement, bool], None]
"""Is told of a settlement whether it was stored."""


class Settles(Protocol):
    async def settle(self, settlements: Sequence[Settlement]) -> None: ...


class Settler:
    """One writer for all lanes. `run` it; `put` never waits."""

    def __init__(self, store: Settles, *, clock: Clock) -> None:
        self.is_away = False
        """The store takes nothing now. Whatever is sent meanwhile would be sent again after a crash."""
        self._store = store
        self._clock = clock
        self._queue: list[tuple[Settlement, Done]] = []
        self._event = asyncio.Event()
        self._closing = asyncio.Event()

    def put(self, settlement: Settlement, done: Done) -> None:
        self._queue.append((settlement, done))
        self._event.set()

    async def run(self) -> None:
        """Store what is put, until it is closed and all is stored, or refused once more."""
        while self._queue or not self._closing.is_set():
            await self._event.wait()
            self._event.clear()
            while self._queue:
                if not await self._settle(self._queue[:LARGEST_BATCH]):
                    if self._closing.is_set():
                        return
                    await self._sleep(_AWAY_SECONDS)

    def close(self) -> None:
        """Store what is there, then end. What the store does not take now is still pending in it."""
        self._closing.set()
        self._event.set()

    async def _settle(self, batch: Sequence[tuple[Settlement, Done]]) -> bool:
        """Take *batch* off the queue, stored or given back. False: the store is away, and it stays."""
        stored = {id(settlement): True for settlement, _ in batch}
        if not await self._is_stored([settlement for settlement, _ in batch]):
            if not self._closing.is_set():
                # One that the store refuses must not take its neighbours with it.
                stored = {id(one): await self._is_stored([one], tries=1) for one, _ in batch if len(batch) > 1}
            if not any(stored.values()) or self._closing.is_set():
                self.is_away = True
                return False
        self.is_away = False
        del self._queue[: len(batch)]
        for settlement, done in batch:
            done(settlement, stored[id(settlement)])
        return True

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

    async def _sleep(self, seconds: float) -> None:
        await self._clock.wait(self._closing, self._clock.now() + timedelta(seconds=seconds))


def _log_failure(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    _log.warning("delivery.settle_retried", attempt=state.attempt_number, error=repr(error))
