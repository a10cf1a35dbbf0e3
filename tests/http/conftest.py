"""The HTTP API over its ports in memory: no socket, no disk."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from litestar import Litestar

from gateway.errors import Overloaded
from gateway.http.keyring import KeyRing
from gateway.http.measuring import Requests
from gateway.http.routes import create_http
from gateway.http.services import Services
from gateway.http.tokens import TokenDesk
from gateway.keys import Key, Scope, hash_secret
from gateway.ports.log import EventLog
from gateway.publishing import Publisher
from gateway.registry.registry import CheckedPublisher, Registry
from gateway.replay import Replayer
from gateway.statistics import Publishing
from gateway.storage.memory import MemoryEventLog
from gateway.subscriptions import Subscription
from tests.fakes.replays import MemoryReplayStore
from tests.http.doubles import CannedRollups, Desk, EventTypes, Keys, Subscriptions
from webhooks.deliveries import Attempt
from webhooks.destinations import check_url

START = datetime(2025, 10, 27, 6, 1, tzinfo=UTC)
STATISTICS = {
    "total_published": 142,
    "total_delivered": 142,
    "active_subscribers": 3,
    "queue_size": 0,
    "events_by_type": {"document.added": 142},
    "average_delivery_latency_ms": 8.5,
    "uptime_seconds": 3600,
    "open_streams": 2,
}


class Api:
    """The app, what it stands on, and clients with keys of any kind."""

    def __init__(self, stack: AsyncExitStack, publisher_of: Callable[[EventLog], Publishing] = Publisher) -> None:
        self._stack = stack
        self.moment = START
        self.keys = Keys()
        self.keyring = KeyRing(self.keys)
        self.tokens = TokenDesk(self.keys, self.keyring, self.clock)
        self.log = MemoryEventLog(clock=self.clock, epoch="k3v9")
        self.publisher = publisher_of(self.log)
        self.event_types = EventTypes()
        self.registry = Registry()
        self.subscriptions = Subscriptions()
        self.desk = Desk()
        self.replay_store = MemoryReplayStore(self.log)
        self.replays = Replayer(self.replay_store, offer=lambda _: None, changed=lambda _: None)
        self.rollups = CannedRollups()
        self.requests = Requests()
        self.woken: list[str] = []
        self.changed: list[str] = []
        self.drains = False
        self.services = Services(
            log=self.log,
            publisher=CheckedPublisher(self.publisher, self.registry),
            keys=self.keys,
            keyring=self.keyring,
            tokens=self.tokens,
            subscriptions=self.subscriptions,
            desk=self.desk,
            replays=self.replays,
            event_types=self.event_types,
            check_by=self.registry.apply,
            clock=self.clock,
            statistics=lambda: STATISTICS,
            rollups=self.rollups,
            metrics=self._metrics,
            requests=self.requests,
            check_url=check_url,
            wake=self._wake,
            changed=self.changed.append,
            ping=self._ping,
            ready=self._ready,
        )
        self.app = create_http(self.services, cors_origins=["https://page.example"])

    def clock(self) -> datetime:
        return self.moment

    def pass_time(self, span: timedelta) -> None:
        self.moment += span

    async def key(self, *scopes: Scope, libraries: Iterable[str] | None = None, name: str = "test") -> str:
        """A new key in the store; answers the secret."""
        secret = f"arrw_test_{len(self.keys.kept)}_{name}"
        await self.keys.add(
            Key(
                id=f"key_{len(self.keys.kept):04}",
                name=name,
                scopes=frozenset(scopes),
                libraries=None if libraries is None else frozenset(libraries),
                created_at=self.moment,
                hash=hash_secret(secret),
            )
        )
        return secret

    async def client(
        self, *scopes: Scope, libraries: Iterable[str] | None = None, app: Litestar | None = None
    ) -> httpx.AsyncClient:
        """A client with a key of *scopes*; without scopes, one without a key."""
        headers = {"authorization": f"Bearer {await self.key(*scopes, libraries=libraries)}"} if scopes else {}
        transport = httpx.ASGITransport(app or self.app, raise_app_exceptions=True)  # type: ignore[arg-type]
        client = httpx.AsyncClient(transport=transport, base_url="http://gateway.test", headers=headers)
        return await self._stack.enter_async_context(client)

    def _wake(self, ids: Iterable[str]) -> None:
        self.woken.extend(ids)

    async def _ping(self, subscription: Subscription) -> Attempt:
        return Attempt(number=1, started_at=self.moment, duration=timedelta(milliseconds=12.5), status_code=204)

    async def _metrics(self) -> bytes:
        return b"gateway_up 1.0\n"

    async def _ready(self) -> None:
        if self.drains:
            raise Overloaded("the gateway is shutting down", retry_after_seconds=5)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with AsyncExitStack() as stack:
        api = Api(stack)
        assert isinstance(api.publisher, Publisher)
        await stack.enter_async_context(api.publisher)
        yield api


@pytest.fixture
async def admin(api: Api) -> httpx.AsyncClient:
    return await api.client(Scope.ADMIN)


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """A module that names its loops (`LOOP_FACTORIES`) is run on each of them: streams lean on how a loop writes."""
    module = item.getparent(pytest.Module)
    return getattr(module and module.obj, "LOOP_FACTORIES", {"asyncio": asyncio.new_event_loop})
