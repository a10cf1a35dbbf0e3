"""Store what attempts came to, in batches: while one batch is being committed, the next collects."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog
from tenacity import AsyncRetrying, RetryCallState, stop_after_attempt, wait_exponential_jitter

from webhooks.deliveries import Settlement

LARGEST_BATCH = 500
TRIES = 6
"""Over about six seconds; then those that cannot be stored are given back, to be sent again later."""

_log = structlog.get_logger(__name__)

Done = Callable[[Settlement, bool], None]
"""Is told of a settlement whether it was stored."""


class Settles(Protocol):
    async def settle(self, settlements: Sequence[Settlement]) -> None: ...


class Settler:
    """One writer for all lanes. `run` it; `put` never waits."""

    def __init__(self, store: Settles, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._store = store
        self._sleep = sleep
        self._queue: list[tuple[Settlement, Done]] = []
        self._event = asyncio.Event()
        self._is_closing = False

    def put(self, settlement: Settlement, done: Done) -> None:
        self._queue.append((settlement, done))
        self._event.set()

    async def run(self) -> None:
        """Store what is put, until it is closed and all is stored."""
        while self._queue or not self._is_closing:
            await self._event.wait()
            self._event.clear()
            while self._queue:
                batch = self._queue[:LARGEST_BATCH]
                await self._store_all(batch)
                # Only now: were this task cancelled within, they would still be here.
                del self._queue[: len(batch)]

    def close(self) -> None:
        """Store what is there, then end. What cannot be stored at the first try is given up: it will be sent again."""
        self._is_closing = True
        self._event.set()

    async def _store_all(self, batch: Sequence[tuple[Settlement, Done]]) -> None:
        settlements = [settlement for settlement, _ in batch]
        if await self._tried(settlements, TRIES):
            for settlement, done in batch:
                done(settlement, True)  # noqa: FBT003 - the one fact it is told
            return
        for settlement, done in batch:
            # One that the store refuses must not take its neighbours with it.
            done(settlement, len(batch) > 1 and await self._tried([settlement], 1))

    async def _tried(self, settlements: Sequence[Settlement], tries: int) -> bool:
        retrying = AsyncRetrying(
            sleep=self._sleep,
            stop=lambda state: self._is_closing or stop_after_attempt(tries)(state),
            wait=wait_exponential_jitter(initial=0.1, max=3),
            before_sleep=_log_failure,
            reraise=True,
        )
        try:
            await retrying(self._store.settle, settlements)
        except Exception:  # noqa: BLE001 - whatever a store raises, the deliveries are still pending in it
            _log.exception("delivery.settle_failed", deliveries=[one.delivery.id for one in settlements[:10]])
            return False
        return True


def _log_failure(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    _log.warning("delivery.settle_retried", attempt=state.attempt_number, error=repr(error))
