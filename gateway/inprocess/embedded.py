"""A bus on a database, in a program of your own and with no server: `EventBus.open("sqlite:///events.db")`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.bus.memory import MemoryBus
from gateway.inprocess.eventbus import Engine
from gateway.inprocess.handlers import Handlers
from gateway.publishing import Publisher
from gateway.registry.registry import CheckedPublisher, Registry
from gateway.statistics import CountedPublisher, Counters
from gateway.storage.engines import database_of
from gateway.storage.event_types import SqlEventTypeStore
from gateway.storage.log import SqlEventLog
from gateway.tail import Tail


@asynccontextmanager
async def open_engine(url: str) -> AsyncIterator[Engine]:
    """Raises:
    ValueError: *url* is no database that can be used.
    DatabaseInUse: another process has it open.
    """
    database = database_of(url, seal=None)
    counters = Counters()
    live = MemoryBus()
    log = SqlEventLog(database)
    registry = Registry()
    async with database, Publisher(log) as publisher, Handlers(log) as handlers:
        database.on_commit(live.announce)
        tail = Tail(log, live)
        for feed in (registry.feed, handlers.feed):
            tail.add(feed)
        counters.add(handlers.share)
        counters.add(registry.share)
        async with tail:
            await registry.load(SqlEventTypeStore(database))
            yield Engine(
                loop=asyncio.get_running_loop(),
                publisher=CountedPublisher(CheckedPublisher(publisher, registry), counters),
                handlers=handlers,
                counters=counters,
                worker=asyncio.current_task(),
            )
