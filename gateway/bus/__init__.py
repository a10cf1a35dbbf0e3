"""The live buses, chosen by URL: what tells the processes of one gateway of each other's events.

memory ───── within one process; others find out when they look, once a second
postgres ─── hints by NOTIFY, over the database's own server
nats ─────── the pages themselves, where they are not too large
"""

import pkgutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec
from typing import Protocol

from gateway.bus.memory import MemoryBus
from gateway.ports.log import EventLog, LiveBus
from gateway.ports.nodes import Hints

_NATS = "nats://"


class OpenedHints(Hints, AbstractAsyncContextManager[object], Protocol):
    """Hints that are said and heard within `async with`."""


class OpenedBus(LiveBus, AbstractAsyncContextManager[object], Protocol):
    """A bus that is at work within `async with`."""


def check_bus(url: str) -> None:
    """Raises:
    ValueError: there is no such bus for processes that share a database.
    """
    if url not in {"memory://", "postgres://"} and not (url.startswith(_NATS) and url != _NATS):
        raise ValueError("expected memory://, postgres:// or nats://host:port")
    if url.startswith(_NATS) and find_spec("nats") is None:
        raise ValueError("NATS needs an extra: pip install 'arrw-gateway[nats]'")


def bus_of(url: str, *, database_url: str, log: EventLog) -> OpenedBus:
    """The bus at *url*, a checked one, for the processes that share *log*, which is kept at *database_url*."""
    if url == "memory://":
        return MemoryBus()
    if url == "postgres://":
        make: Callable[[str], OpenedBus] = pkgutil.resolve_name("gateway.bus.postgres:PostgresBus")
        return make(database_url)
    connect: Callable[[str, EventLog], OpenedBus] = pkgutil.resolve_name("gateway.bus.nats:NatsBus")
    return connect(url, log)


def hints_of(database_url: str) -> OpenedHints:
    """Hints about lanes, for the processes that share the PostgreSQL at *database_url*, whichever bus they have."""
    make: Callable[[str], OpenedHints] = pkgutil.resolve_name("gateway.bus.hints:PostgresHints")
    return make(database_url)
