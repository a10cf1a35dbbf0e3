"""Put the parts together. The only place where they meet; everything here is about who knows whom, and in which order.

Database ─ stores ┐
Bus ──────────────┼─ Publisher · Tail ─┬─ Streams · EventBus (handlers)
Settings ─────────┘                    └─ Fanout ─┬▶ Dispatcher ─▶ Sender ─▶ VettingTransport
                                       Replayer ──┘
Roles: api (requests), stream (readers), dispatch (sending, and the duty): all of them by default
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import msgspec

from gateway import metrics
from gateway.admin_key import ensure_admin_key
from gateway.bus import bus_of, hints_of
from gateway.duty import Duty
from gateway.errors import NotFound, Overloaded
from gateway.events import Page
from gateway.fanout.fanout import Fanout
from gateway.fanout.interests import SUBSCRIPTION_NOTICES, Notice
from gateway.http.keyring import KeyRing
from gateway.http.measuring import Requests
from gateway.http.routes import CONTROLLERS, WITHOUT_API, create_http
from gateway.http.services import Services
from gateway.http.streams import stream_routes
from gateway.http.tokens import TokenDesk
from gateway.inprocess.eventbus import Engine, install
from gateway.inprocess.handlers import Handlers
from gateway.ping import a_ping
from gateway.publishing import Publisher
from gateway.registry.registry import CheckedPublisher, Registry
from gateway.replay import Replayer
from gateway.roles import ALL_ROLES, Role
from gateway.sending.sending import AloneSending, NotSending, Sending
from gateway.sending.sharing import SharedSending
from gateway.settings import Settings
from gateway.statistics import CountedPublisher, Counters, DeliveryTally
from gateway.storage import notices
from gateway.storage.deliveries import SqlDeliveryStore
from gateway.storage.desk import SqlDeliveryDesk
from gateway.storage.engines import database_of
from gateway.storage.event_types import SqlEventTypeStore
from gateway.storage.fanout import SqlFanoutStore
from gateway.storage.folding import Folding
from gateway.storage.keys import SqlKeyStore
from gateway.storage.log import SqlEventLog
from gateway.storage.replays import SqlReplayStore
from gateway.storage.retention import SqlRetentionStore
from gateway.storage.rollups import SqlRollups
from gateway.storage.sealing import Seal
from gateway.storage.subscriptions import SqlSubscriptionStore
from gateway.streams.streaming import Streams
from gateway.subscriptions import Subscription
from gateway.supervision import running
from gateway.tail import Tail
from gateway.times import Clock
from gateway.times import now as system_clock
from gateway.upkeep.housekeeping import Housekeeping
from gateway.upkeep.retention import Retention
from gateway.upkeep.rolling_up import RollingUp
from gateway.version import __version__
from webhooks.deliveries import Attempt, Settlement
from webhooks.destinations import Guard, check_url, parse_networks
from webhooks.dispatcher import Dispatcher
from webhooks.ownership import Holder
from webhooks.rules import Rules
from webhooks.sender import Sender
from webhooks.transport import VettingTransport


async def prepare(settings: Settings, *, clock: Clock = system_clock) -> str | None:
    """Open the database once, so that it is migrated and there is an admin key, before several processes do; the key
    that was made, see `Gateway.first_key`."""
    given = settings.admin_key
    async with database_of(settings.database_url, clock=clock, seal=_seal_of(settings)) as database:
        return await ensure_admin_key(SqlKeyStore(database), None if given is None else given.get_secret_value(), clock)


def _seal_of(settings: Settings) -> Seal:
    return Seal([key.get_secret_value() for key in settings.secret_key])


class Gateway:
    """One process's gateway. `async with gateway.running()` starts it; `app` serves it over HTTP meanwhile."""

    def __init__(
        self,
        settings: Settings,
        *,
        roles: frozenset[Role] = ALL_ROLES,
        clock: Clock = system_clock,
        transport: VettingTransport | None = None,
    ) -> None:
        self.settings = settings
        self.roles = roles
        self.first_key: str | None = None
        """The admin key that was made at the first start, to be shown once."""
        self._clock = clock
        self._draining = False

        self._database = database_of(settings.database_url, clock=clock, seal=_seal_of(settings))
        self.log = SqlEventLog(self._database)
        self._bus = bus_of(settings.bus, database_url=settings.database_url, log=self.log)
        self._database.on_commit(self._bus.announce)
        self._keys = SqlKeyStore(self._database)
        self._subscriptions = SqlSubscriptionStore(self._database)
        self._publisher = Publisher(self.log)
        self._tail = Tail(self.log, self._bus)
        self._handlers = Handlers(self.log, clock=clock)
        self._counters = Counters()
        self._tally = DeliveryTally()
        rollups = SqlRollups(self._database)
        self._rolling_up = RollingUp(Folding(self._database), clock=clock)
        self._event_types = SqlEventTypeStore(self._database)
        self._registry = Registry()
        self._counted = CountedPublisher(CheckedPublisher(self._publisher, self._registry), self._counters)

        networks = parse_networks(settings.destination_allow)
        self._transport = transport or VettingTransport(Guard(networks))
        self._deliveries = SqlDeliveryStore(
            self._database, retry_schedule=tuple(settings.retry_schedule), settled=self._settled
        )
        self._sender = Sender(self._transport, user_agent=f"arrw-gateway/{__version__}", clock=clock)
        self._hints = hints_of(settings.database_url) if self._database.nodes is not None else None
        self._dispatcher = self._sending()
        self._duty = Duty(self._database.on_duty)
        self._fanout = Fanout(
            self.log,
            SqlFanoutStore(self._database),
            self._subscriptions,
            offer=self._dispatcher.offer,
            is_stuck=self._dispatcher.is_stuck,
        )
        self._replays = Replayer(
            SqlReplayStore(self._database), offer=self._dispatcher.offer, changed=self._dispatcher.changed
        )
        self._streams = Streams(
            log=self.log,
            tail=self._tail,
            max_streams=settings.max_streams,
            heartbeat_seconds=settings.stream_heartbeat_seconds,
            clock=clock,
        )
        self._housekeeping = Housekeeping(self._subscriptions, deleted=notices.DELETED)
        self._retention = Retention(
            SqlRetentionStore(self._database),
            events_for=timedelta(seconds=settings.event_retention_seconds),
            attempts_for=timedelta(seconds=settings.attempt_retention_seconds),
            clock=clock,
            passed=lambda: self._tail.cursor,
            expired=self._dispatcher.changed,
        )
        self._duty.add("fanout", self._fanout.run)
        self._duty.add("replays", self._replays.run)
        self._duty.add("housekeeping", self._housekeeping.run)
        self._duty.add("rolling_up", self._rolling_up.run)
        self._duty.add("retention", self._retention.run)
        keyring = KeyRing(self._keys)
        feeds = (keyring.feed, self._handlers.feed, self._fanout.feed, self._housekeeping.feed, self._tell_lanes)
        for feed in (self._registry.feed, *feeds):
            self._tail.add(feed)
        self._counters.add(self._registry.share)
        self._counters.add(self._handlers.share)
        self._counters.add(self._streams.share)
        self._counters.add(
            lambda: self._tally.share(
                subscriptions=self._fanout.subscriptions,
                behind=max(0, self._tail.cursor - self._fanout.cursor) if self._duty.is_on else 0,
            )
        )
        requests = Requests()
        looks = metrics.Looks(self.log, rollups, clock=clock)
        exposition = metrics.Metrics(
            metrics.build,
            lambda: metrics.publishing(self._counters, self._publisher),
            lambda: metrics.webhooks(self._tally, self._dispatcher),
            lambda: metrics.of_streams(self._streams),
            lambda: looks.families(self._tail, self._fanout if self._duty.is_on else self._tail),
            requests.families,
            refresh=looks.refresh,
        )
        self.app = create_http(
            Services(
                log=self.log,
                publisher=self._counted,
                keys=self._keys,
                keyring=keyring,
                tokens=TokenDesk(self._keys, keyring, clock),
                subscriptions=self._subscriptions,
                desk=SqlDeliveryDesk(self._database),
                replays=self._replays,
                event_types=self._event_types,
                check_by=self._registry.apply,
                clock=clock,
                statistics=self._counters.figures,
                rollups=rollups,
                metrics=exposition.text,
                requests=requests,
                check_url=lambda url: check_url(url, networks),
                wake=self._dispatcher.wake,
                changed=self._dispatcher.changed,
                ping=self._ping,
                ready=self._ready,
                default_timeout_seconds=settings.delivery_timeout_seconds,
            ),
            cors_origins=settings.cors_origins,
            controllers=CONTROLLERS if Role.API in roles else WITHOUT_API,
            route_handlers=[stream_routes(self._streams)] if Role.STREAM in roles else [],
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything at work, from the database upwards; ended in the opposite order."""
        given = self.settings.admin_key
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._database)
            await stack.enter_async_context(self._bus)
            self.first_key = await ensure_admin_key(
                self._keys, None if given is None else given.get_secret_value(), self._clock
            )
            await stack.enter_async_context(self._publisher)
            await stack.enter_async_context(self._transport)
            if self._hints is not None:
                await stack.enter_async_context(self._hints)
            self._dispatching = await stack.enter_async_context(running("dispatcher", self._dispatcher.run))
            if Role.DISPATCH in self.roles:
                await stack.enter_async_context(running("duty", self._duty.run))
            await stack.enter_async_context(self._handlers)
            await stack.enter_async_context(self._tail)
            await self._registry.load(self._event_types)
            await stack.enter_async_context(running("retention", self._retention.run))
            await stack.enter_async_context(self._streams)
            stack.callback(install(self._engine()))
            stack.push_async_callback(self.drain)
            yield

    def _engine(self) -> Engine:
        """What `get_event_bus()` runs on in this process from now on."""
        return Engine(
            loop=asyncio.get_running_loop(),
            publisher=self._counted,
            handlers=self._handlers,
            counters=self._counters,
            worker=asyncio.current_task(),
        )

    async def drain(self) -> None:
        """End the streams and stop sending; attempts in flight get a little time. Requests are still answered."""
        self._draining = True
        self._duty.drain()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._streams.drain())
            group.create_task(self._dispatcher.drain())

    def _sending(self) -> Sending:
        hints, nodes = self._hints, self._database.nodes
        if Role.DISPATCH not in self.roles:
            return NotSending(None if hints is None else hints.say)
        if hints is None or nodes is None:
            return AloneSending(self._a_dispatcher)
        return SharedSending(nodes, hints, self._a_dispatcher)

    def _a_dispatcher(self, holder: Holder | None = None) -> Dispatcher:
        rules = Rules(
            max_age=timedelta(seconds=self.settings.max_delivery_age_seconds),
            disable_after=timedelta(seconds=self.settings.disable_after_seconds),
        )
        return Dispatcher(self._deliveries, self._sender, rules=rules, holder=holder)

    def _settled(self, settlements: Sequence[Settlement]) -> None:
        self._tally.count(settlements)
        self._replays.settled(settlements)

    def _tell_lanes(self, page: Page) -> None:
        """A lane reads its endpoint again when the log says that its subscription has changed."""
        for event in page.events:
            if event.type.startswith(SUBSCRIPTION_NOTICES):
                self._dispatcher.noticed(msgspec.json.decode(event.data, type=Notice).subscription_id)

    async def _ping(self, subscription: Subscription) -> Attempt:
        found = await self._deliveries.endpoint(subscription.id)
        if found is None:
            raise NotFound("there is no such subscription")
        return await self._sender.send(a_ping(subscription.id, self._clock()), found[0])

    async def _ready(self) -> None:
        if self._draining:
            raise Overloaded("The gateway is stopping")
        if self._dispatching.done():
            # It was drained, and what was sent meanwhile only a restart can tell.
            raise Overloaded("Webhooks are no longer sent: restart the gateway")
        await self.log.position()
