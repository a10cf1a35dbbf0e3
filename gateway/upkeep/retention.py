"""Let go of what is too old, a little at a time, beside everything else.

    every look:  ┌▶ a batch of events ─▶ of attempts ─▶ of settled deliveries ─▶ of what they leave behind ─┐
                 └───────────────────────── those again of which there is more ─────────────────────────────┘

After each batch it rests for longer than the batch took, its wait for the writer included: the busier the writer is
with publishers, the less it is asked of.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from gateway.errors import StorageUnavailable
from gateway.events import Cursor
from gateway.ports.retention import RetentionStore
from gateway.times import Clock

LOOK_SECONDS = 10.0
"""How often it looks, where what is kept is kept for long."""
LOOKS_PER_RETENTION = 10
"""Nothing stays longer than it should by more than this part of its time."""
RETRY_SECONDS = 1.0
REST = 2.0
"""How long it rests after a batch, in times of that batch."""
ROWS_AT_ONCE = 500
BYTES_AT_ONCE = 2**20
OWED_AT_ONCE = 64
"""Deliveries that expire in one batch. With these three the writer is held for some 10 ms."""

_logger = structlog.get_logger(__name__)


class Retention:
    """`run` it in a task.

    *passed*: up to where this process has read the log itself, beyond which no event goes. *expired* is told of each
    subscription that was still owed something that has gone.
    """

    def __init__(
        self,
        store: RetentionStore,
        *,
        events_for: timedelta,
        attempts_for: timedelta,
        clock: Clock,
        passed: Callable[[], Cursor],
        expired: Callable[[str], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._events_for = events_for
        self._attempts_for = attempts_for
        self._clock = clock
        self._passed = passed
        self._expired = expired
        self._sleep = sleep
        self._monotonic = monotonic
        shortest = min(events_for, attempts_for).total_seconds()
        self._look_seconds = min(LOOK_SECONDS, shortest / LOOKS_PER_RETENTION)

    async def run(self) -> None:
        while True:
            gone: Counter[str] = Counter()
            batches = [self._events, self._attempts, self._deliveries, self._remains]
            try:
                while batches:
                    batches = [batch for batch in batches if await self._restfully(batch, gone)]
            except StorageUnavailable as error:
                _logger.warning("retention.waiting", error=error.detail)
                await self._sleep(RETRY_SECONDS)
                continue
            if gone.total():
                _logger.info("retention.dropped", **gone)
            await self._sleep(self._look_seconds)

    async def _restfully(self, batch: Callable[[Counter[str]], Awaitable[bool]], gone: Counter[str]) -> bool:
        """One batch, counted in *gone*, and a rest. Whether there may be more."""
        began = self._monotonic()
        more = await batch(gone)
        await self._sleep(REST * (self._monotonic() - began))
        return more

    async def _events(self, gone: Counter[str]) -> bool:
        dropped = await self._store.drop_events(
            before=self._clock() - self._events_for,
            passed=self._passed(),
            limit=ROWS_AT_ONCE,
            max_bytes=BYTES_AT_ONCE,
            most_owed=OWED_AT_ONCE,
        )
        for subscription_id in dropped.owing:
            self._expired(subscription_id)
        gone["events"] += dropped.events
        return dropped.more

    async def _attempts(self, gone: Counter[str]) -> bool:
        count = await self._store.drop_attempts(before=self._clock() - self._attempts_for, limit=ROWS_AT_ONCE)
        gone["attempts"] += count
        return count >= ROWS_AT_ONCE

    async def _deliveries(self, gone: Counter[str]) -> bool:
        count = await self._store.drop_deliveries(before=self._clock() - self._attempts_for, limit=ROWS_AT_ONCE)
        gone["deliveries"] += count
        return count >= ROWS_AT_ONCE

    async def _remains(self, gone: Counter[str]) -> bool:
        count = await self._store.drop_remains(before=self._clock() - self._attempts_for, limit=ROWS_AT_ONCE)
        gone["remains"] += count
        return count >= ROWS_AT_ONCE
