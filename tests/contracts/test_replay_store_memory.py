"""The store that the runner of replays is tested with keeps the promises of one."""

from collections.abc import Sequence
from datetime import datetime

import pytest

from gateway.events import Cursor, Draft, LoggedEvent
from gateway.ports.replays import ReplayStore
from gateway.storage.memory import MemoryEventLog
from tests.builders import HandClock, a_draft
from tests.contracts.replay_store import ReplayStoreContract
from tests.fakes.replays import MemoryReplayStore
from webhooks.deliveries import Delivery, DeliveryStatus


class MemoryUnderTest:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.log = MemoryEventLog(clock=self.clock)
        self.memory = MemoryReplayStore(self.log)
        self.store: ReplayStore = self.memory
        self.memory.fanned_out_to = Cursor(0)

    @property
    def now(self) -> datetime:
        return self.clock.moment

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds=seconds)

    async def subscribe(self) -> str:
        subscription_id = f"sub_{len(self.memory.active)}"
        self.memory.active[subscription_id] = True
        return subscription_id

    async def publish(self, *drafts: Draft) -> Sequence[LoggedEvent]:
        head = (await self.log.position()).head
        await self.log.append([drafts or (a_draft(),)])
        return (await self.log.read(head)).events

    async def fan_out(self, *owed: tuple[LoggedEvent, str, DeliveryStatus]) -> None:
        self.memory.fanned_out_to = (await self.log.position()).head
        for event, subscription_id, status in owed:
            self.memory.live[subscription_id, event.cursor] = status

    async def try_one(self, delivery: Delivery, status: DeliveryStatus) -> None:
        self.memory.settle(delivery.id, status)

    async def pause(self, subscription_id: str) -> None:
        self.memory.active[subscription_id] = False

    async def delete(self, subscription_id: str) -> None:
        del self.memory.active[subscription_id]

    async def drop(self, until: Cursor) -> None:
        self.log.drop(until)

    async def progress(self, replay_id: str) -> tuple[str, int, dict[str, int]]:
        kept = self.memory.kept[replay_id]
        counts = {status.value: kept.count(status) for status in DeliveryStatus}
        ended = "finished" if kept.finished_at else "running"
        status = "stopped" if kept.replay.is_stopped else ended
        return status, kept.created, {name: count for name, count in counts.items() if count}


class TestMemoryReplayStore(ReplayStoreContract):
    @pytest.fixture
    def subject(self) -> MemoryUnderTest:
        return MemoryUnderTest()
