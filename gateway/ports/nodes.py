"""Nodes: the processes that send webhooks from one database, and which lanes each of them owns."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Protocol

import msgspec

from webhooks.ownership import Lease

HintKind = Literal["wake", "changed", "free"]
"""There may be work · read all of it anew · nobody owns it any more: whoever has room may take it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """Something about lanes that another process should hear of soon. It may be lost: each looks once a second."""

    kind: HintKind
    endpoint_ids: tuple[str, ...]
    by: str | None = None
    """The node that says so, where it would hear itself."""


HINTS_CHANNEL = "arrw_gateway_lanes"
"""Of NOTIFY; a hint is sent as JSON."""
HINTED_AT_ONCE = 100
"""A message holds 8,000 bytes."""


def hints(kind: HintKind, endpoint_ids: Iterable[str], *, by: str | None = None) -> Iterator[str]:
    """As messages."""
    ids = sorted(endpoint_ids)
    for start in range(0, len(ids), HINTED_AT_ONCE):
        hint = Hint(kind=kind, endpoint_ids=tuple(ids[start : start + HINTED_AT_ONCE]), by=by)
        yield msgspec.json.encode(hint).decode()


class Hints(Protocol):
    """From process to process. Any of them may be lost."""

    def say(self, kind: HintKind, endpoint_ids: Iterable[str]) -> None: ...

    def listen(self, listener: Callable[[Hint], None]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A lane that has become a node's own."""

    term: int
    quiet_for: timedelta | None
    """For how long at least nobody can have sent for it; None: nobody ever did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """Who is there. Nodes that are leaving do not count, nor do those whose lease has lapsed."""

    nodes: int
    lanes: int
    """That they own."""


class Membership(Protocol):
    """A process as a node, for as long as one lease lasts."""

    @property
    def node_id(self) -> str: ...

    @property
    def lease(self) -> Lease: ...

    @property
    def is_over(self) -> asyncio.Event:
        """Set once the lease has lapsed: it was not renewed in time, whoever is to blame."""

    async def depart(self) -> None:
        """Say that it takes no more lanes: the others share what it is about to give back."""


class Nodes(Protocol):
    """Every method may be called again. Time is the database's own."""

    def joined(self) -> AbstractAsyncContextManager[Membership]:
        """Be a node, as soon as the database can be reached. At the end whatever it owns is free at once, if that can
        be said; else when its lease has lapsed, and the longest attempt begun under it is over."""

    async def census(self) -> Census: ...

    async def free(self, node_id: str, endpoint_ids: Sequence[str]) -> AbstractSet[str]:
        """Those that *node_id* may take: nobody owns them, or nobody who could still be sending. What it owns itself
        is among them: it was taken, but the answer was lost."""

    async def take(self, node_id: str, endpoint_ids: Sequence[str]) -> Mapping[str, Taken]:
        """Make those its own that are free still."""

    async def give_back(self, node_id: str, endpoint_ids: Sequence[str], *, tell: bool) -> None:
        """Own them no longer; with *tell* the others are hinted that they are free."""
