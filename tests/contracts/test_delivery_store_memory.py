"""The delivery store that lanes are tested with keeps the promises of one."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from tests.contracts.delivery_store import DeliveryStoreContract
from tests.fakes.clock import START
from tests.fakes.deliveries import MemoryDeliveryStore, a_delivery, an_endpoint
from webhooks.deliveries import Attempt, Delivery, DeliveryStatus
from webhooks.endpoints import Status


class MemoryUnderTest:
    def __init__(self) -> None:
        self.store = MemoryDeliveryStore()
        self.now: datetime = START

    async def add_endpoint(self, *, idle: timedelta = timedelta(0)) -> str:
        endpoint_id = f"sub_{len(self.store.endpoints)}"
        self.store.add(an_endpoint(endpoint_id, idle=idle))
        return endpoint_id

    async def owe(self, endpoint_id: str, *, library_id: str = "lib", data_bytes: int = 2) -> Delivery:
        delivery = a_delivery(len(self.store.rows) + 1, endpoint_id, library_id=library_id)
        delivery = replace(delivery, body=delivery.body + b" " * data_bytes)
        self.store.add(delivery)
        return delivery

    async def replay(self, endpoint_id: str, *owed: Delivery) -> Sequence[Delivery]:
        made = [replace(one, id=f"{one.id}_again", replay_id="rpl_1", replayed=True) for one in owed]
        self.store.add(*made)
        return made

    async def force(self, delivery_id: str) -> None:
        row = self.store.rows[delivery_id]
        row.delivery = replace(row.delivery, forced=True, due_at=self.now)

    async def cancel(self, delivery_id: str) -> None:
        row = self.store.rows[delivery_id]
        row.status, row.reason = DeliveryStatus.CANCELLED, "cancelled"

    async def pause(self, endpoint_id: str) -> None:
        self.store.add(replace(self.store.endpoints[endpoint_id], status=Status.PAUSED))

    async def delete(self, endpoint_id: str) -> None:
        del self.store.endpoints[endpoint_id]

    async def status(self, delivery_id: str) -> tuple[DeliveryStatus, str | None]:
        row = self.store.rows[delivery_id]
        return row.status, row.reason

    async def attempts(self, delivery_id: str) -> Sequence[Attempt]:
        return list(self.store.rows[delivery_id].attempts.values())


class TestMemoryDeliveryStore(DeliveryStoreContract):
    @pytest.fixture
    def subject(self) -> MemoryUnderTest:
        return MemoryUnderTest()
