"""What the HTTP API is made of: ports and callables, put together by `gateway.app`."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from litestar.di import NamedDependency
from litestar.params import SkipValidation

from gateway.event_types import EventTypeRecord
from gateway.events import Draft, Position
from gateway.filters import Filter
from gateway.http.keyring import KeyRing
from gateway.http.measuring import Requests
from gateway.http.tokens import TokenDesk
from gateway.ports.desk import DeliveryDesk, Statistics
from gateway.ports.event_types import EventTypeStore
from gateway.ports.keys import KeyStore
from gateway.ports.log import EventLog, Published
from gateway.ports.subscriptions import SubscriptionStore
from gateway.replay import Prospect
from gateway.rollups.rollups import Rollups
from gateway.subscriptions import Subscription
from gateway.times import Clock
from webhooks.deliveries import Attempt


class Publishing(Protocol):
    async def publish(self, drafts: Sequence[Draft]) -> Published:
        """Append *drafts*, all or none; durable on return. Raises `Overloaded`."""


class Replays(Protocol):
    """`gateway.replay.Replayer`."""

    async def look(
        self, subscription: Subscription, asked: Filter, *, since: datetime, until: datetime | None, undelivered: bool
    ) -> Prospect: ...

    async def start(self, prospect: Prospect, *, max_per_second: float | None) -> str | None: ...


class Scribe:
    """Knows the log's epoch, which stays the same for as long as a process runs: so to write a cursor reads nothing."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._position: Position | None = None

    async def position(self) -> Position:
        """Good for `Position.write`; its head and earliest are those of some time ago."""
        if self._position is None:
            self._position = await self._log.position()
        return self._position


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Handlers get this by the name `services`."""

    log: EventLog
    publisher: Publishing
    keys: KeyStore
    keyring: KeyRing
    """Its `feed` belongs on the tail, so that keys revoked elsewhere are forgotten here."""
    tokens: TokenDesk
    subscriptions: SubscriptionStore
    desk: DeliveryDesk
    replays: Replays
    event_types: EventTypeStore
    check_by: Callable[[EventTypeRecord], None]
    """Hold what is published to it from now on."""
    clock: Clock
    statistics: Callable[[], Statistics]
    """What `GET /v1/events/stats` answers."""
    rollups: Rollups
    metrics: Callable[[], Awaitable[bytes]]
    """What `GET /metrics` answers."""
    requests: Requests
    """Counts what this API answers."""
    check_url: Callable[[str], str]
    """A destination, normalised. Raises ValueError, in words for a person, when it is not one."""
    wake: Callable[[Iterable[str]], None]
    """These subscriptions have deliveries to send."""
    changed: Callable[[str], None]
    """This subscription is not what it was."""
    ping: Callable[[Subscription], Awaitable[Attempt]]
    """Send `gateway.ping` to it now, whatever its status, and answer how it went."""
    ready: Callable[[], Awaitable[None]]
    """Returns when the gateway can do its work. Raises `Overloaded`, saying why it cannot."""
    default_timeout_seconds: float = 15.0
    """How long the receiver of a subscription that does not say may take."""
    scribe: Scribe = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scribe", Scribe(self.log))


Use = NamedDependency[SkipValidation[Services]]
"""`services: Use` in a handler's signature."""
