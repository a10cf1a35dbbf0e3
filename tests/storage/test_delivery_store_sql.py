"""The delivery store in SQL keeps the promises of one."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from gateway.subscriptions import Subscription, paused
from tests.builders import a_draft
from tests.contracts.delivery_store import DeliveryStoreContract
from tests.storage.arrange import Stores
from webhooks.deliveries import Attempt, Delivery, DeliveryStatus
from webhooks.ports import DeliveryStore

FAR = timedelta(days=9)


class SqlUnderTest:
    def __init__(self, stores: Stores) -> None:
        self.store: DeliveryStore = stores.deliveries
        self._stores = stores
        self._subscriptions: dict[str, Subscription] = {}

    @property
    def now(self) -> datetime:
        return self._stores.clock()

    async def add_endpoint(self, *, idle: timedelta = timedelta(0)) -> str:
        subscription = await self._stores.subscribe(idle=idle)
        self._subscriptions[subscription.id] = subscription
        return subscription.id

    async def owe(self, endpoint_id: str, *, library_id: str = "lib", data_bytes: int = 2) -> Delivery:
        subscription = self._subscriptions[endpoint_id]
        before = {one.id for one in await self._stores.due(subscription, now=self.now + FAR)}
        events = await self._stores.publish(a_draft(library_id=library_id, data=b'{"x":"%b"}' % (b"x" * data_bytes)))
        await self._stores.owe(events, subscription)
        (new,) = [one for one in await self._stores.due(subscription, now=self.now + FAR) if one.id not in before]
        return new

    async def force(self, delivery_id: str) -> None:
        await self._stores.desk.retry(delivery_id, now=self.now)

    async def cancel(self, delivery_id: str) -> None:
        await self._stores.desk.cancel(delivery_id, now=self.now)

    async def pause(self, endpoint_id: str) -> None:
        await self._stores.subscriptions.change(
            endpoint_id, lambda subscription: paused(subscription, self.now), "gateway.subscription.updated"
        )

    async def delete(self, endpoint_id: str) -> None:
        await self._stores.subscriptions.delete(endpoint_id)

    async def status(self, delivery_id: str) -> tuple[DeliveryStatus, str | None]:
        record = await self._stores.desk.get(delivery_id)
        assert record is not None
        return record.status, record.reason

    async def attempts(self, delivery_id: str) -> Sequence[Attempt]:
        return await self._stores.desk.attempts(delivery_id)


class TestSqlDeliveryStore(DeliveryStoreContract):
    @pytest.fixture
    def subject(self, stores: Stores) -> SqlUnderTest:
        return SqlUnderTest(stores)
