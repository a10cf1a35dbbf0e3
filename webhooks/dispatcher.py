"""Own the lanes: run each that has work as a task, settle what they did, and stop in good order.

wake(ids) ──┐
sweep, 1 s ─┼─▶ lanes ──attempts──▶ receivers
changed(id) ┘     └──settlements──▶ settler ──▶ store
"""

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

import structlog

from webhooks.budget import Budget
from webhooks.clock import Clock, SystemClock
from webhooks.deliveries import Delivery
from webhooks.lane import Lane
from webhooks.ownership import Holder
from webhooks.ports import DeliveryStore, Sends
from webhooks.rules import Rules, Workshop
from webhooks.schedule import Rand
from webhooks.settling import Settler

MOST_AT_ONCE = 512
"""Attempts in flight in all lanes together, beyond the one that each always has."""
SWEEP_EVERY = timedelta(seconds=1)
SETTLE_PATIENCE_SECONDS = 1.0
"""How long a drain waits for the store; what it has not taken by then is sent again."""

_log = structlog.get_logger(__name__)


class Dispatcher:
    """Sends what the store owes. `run` it in a task, then `drain` it."""

    def __init__(
        self,
        store: DeliveryStore,
        sender: Sends,
        *,
        clock: Clock | None = None,
        rand: Rand = random.random,
        rules: Rules | None = None,
        most_at_once: int = MOST_AT_ONCE,
        holder: Holder | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._settler = Settler(store, clock=clock)
        self._shop = Workshop(
            store=store,
            sender=sender,
            settler=self._settler,
            budget=Budget(most_at_once),
            clock=clock,
            rand=rand,
            rules=rules or Rules(),
            holder=holder,
        )
        self._lanes: dict[str, Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._settling: asyncio.Task[None] | None = None
        self._draining = asyncio.Event()
        self._drains = asyncio.Lock()

    @property
    def lanes(self) -> int:
        """Lanes that are awake."""
        return len(self._lanes)

    @property
    def in_flight(self) -> int:
        """Attempts under way."""
        return sum(lane.in_flight for lane in self._lanes.values())

    def wake(self, endpoint_ids: Iterable[str]) -> None:
        """These endpoints have new deliveries, or may have."""
        for endpoint_id in endpoint_ids:
            if (lane := self._lanes.get(endpoint_id)) is not None:
                lane.wake()
            else:
                self._start(endpoint_id)

    def offer(self, fresh: Mapping[str, Sequence[Delivery]]) -> None:
        """By endpoint: deliveries that have just been stored, and are due. A lane that has read all before them need
        not read these."""
        for endpoint_id, deliveries in fresh.items():
            if (lane := self._lanes.get(endpoint_id)) is not None:
                lane.offer(deliveries)
            else:
                self._start(endpoint_id)

    def is_stuck(self, endpoint_id: str) -> bool:
        """Whether this endpoint's lane has been full for a while."""
        lane = self._lanes.get(endpoint_id)
        return lane is not None and lane.is_stuck

    def changed(self, endpoint_id: str) -> None:
        """An endpoint was changed, paused, resumed or deleted, or one of its deliveries forced or cancelled."""
        if (lane := self._lanes.get(endpoint_id)) is not None:
            lane.change()
        else:
            self._start(endpoint_id)

    def leave(self, endpoint_id: str) -> None:
        """End its lane as soon as its attempts in flight have ended and are settled; begin no other."""
        if (lane := self._lanes.get(endpoint_id)) is not None:
            lane.leave()

    async def run(self) -> None:
        """Until it is drained or cancelled. What the store owed before is found by the first sweep."""
        self._settling = asyncio.create_task(self._settler.run())
        try:
            while not self._draining.is_set():
                if self._settling.done():
                    # It ends early only by a fault of ours. Better no dispatcher than one that forgets.
                    self._settling.result()
                await self._sweep()
                await self._shop.clock.wait(self._draining, self._shop.clock.now() + SWEEP_EVERY)
        finally:
            await self.drain(patience_seconds=0)

    async def drain(self, patience_seconds: float = 3) -> None:
        """Start nothing more; let attempts in flight end for so long, break off the others, and store what is done.

        An attempt that is broken off does not count: its delivery is as it was, and sent again later.
        """
        self._draining.set()
        async with self._drains:
            for lane in self._lanes.values():
                lane.stop()
            if self._tasks:
                _, late = await asyncio.wait(self._tasks, timeout=patience_seconds)
                for task in late:
                    task.cancel()
                if late:
                    await asyncio.wait(late)
            self._settler.close()
            if self._settling is not None and not self._settling.done():
                _, unsettled = await asyncio.wait([self._settling], timeout=SETTLE_PATIENCE_SECONDS)
                for task in unsettled:
                    task.cancel()

    def _start(self, endpoint_id: str) -> None:
        if self._draining.is_set():
            return
        hold = None
        if self._shop.holder is not None and (hold := self._shop.holder.hold(endpoint_id)) is None:
            return
        lane = self._lanes[endpoint_id] = Lane(endpoint_id, self._shop, hold)
        task = asyncio.create_task(self._run_lane(lane))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_lane(self, lane: Lane) -> None:
        try:
            await lane.run()
        except Exception:  # noqa: BLE001 - a fault of ours in one lane; the sweep starts it again, the others go on
            _log.exception("lane.failed", endpoint=lane.endpoint_id)
        finally:
            # Without an await since the lane decided to end: nobody can have woken it in between.
            del self._lanes[lane.endpoint_id]
            if self._shop.holder is not None:
                self._shop.holder.ended(lane.endpoint_id)

    async def _sweep(self) -> None:
        """The net: start what is due and has no lane, whoever forgot to say so."""
        try:
            owing = await self._shop.store.lanes()
        except Exception:  # noqa: BLE001 - whatever a store raises, it is asked again
            _log.exception("dispatcher.sweep_failed")
            return
        soon = self._shop.clock.now() + SWEEP_EVERY
        for endpoint_id, due_at in owing.items():
            lane = self._lanes.get(endpoint_id)
            if due_at <= soon and (lane is None or lane.looks_idle):
                self.wake([endpoint_id])
