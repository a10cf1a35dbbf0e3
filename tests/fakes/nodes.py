"""Nodes in memory: what they promise, without a database, on the tests' clock."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from gateway.errors import StorageUnavailable
from gateway.ports.nodes import Census, Hint, HintKind, Taken
from tests.fakes.clock import FakeClock
from webhooks.ownership import Lease


@dataclass
class Owned:
    node: str | None = None
    term: int = 0
    given_back_at: datetime | None = None


class FakeMember:
    """`gateway.nodes.Membership`. A test lets its lease lapse."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.lease = Lease(0.0, clock=lambda: 0.0)
        self.is_over = asyncio.Event()
        self.is_leaving = False

    async def depart(self) -> None:
        self.is_leaving = True

    def lapse(self) -> None:
        self.lease.end()
        self.is_over.set()


@dataclass
class FakeNodes:
    """`gateway.nodes.Nodes`, for all processes of a test. What `fail` is set to is raised."""

    clock: FakeClock
    exchange: "FakeExchange"
    members: dict[str, FakeMember] = field(default_factory=dict)
    owners: dict[str, Owned] = field(default_factory=dict)
    fail: StorageUnavailable | None = None
    joins: int = 0
    most_asked: int = 0

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[FakeMember]:
        self.joins += 1
        member = FakeMember(f"node_{self.joins}")
        self.members[member.node_id] = member
        try:
            yield member
        finally:
            del self.members[member.node_id]
            self._free(member.node_id, self.owned_by(member.node_id), tell=True)

    async def census(self) -> Census:
        await self._answer()
        staying = [id_ for id_, member in self.members.items() if not member.is_leaving and member.lease.is_held]
        return Census(nodes=len(staying), lanes=sum(owned.node in staying for owned in self.owners.values()))

    async def free(self, node_id: str, endpoint_ids: Sequence[str]) -> AbstractSet[str]:
        await self._answer()
        self.most_asked = max(self.most_asked, len(endpoint_ids))
        return {id_ for id_ in endpoint_ids if self._owned(id_).node in {None, node_id}}

    async def take(self, node_id: str, endpoint_ids: Sequence[str]) -> Mapping[str, Taken]:
        taken: dict[str, Taken] = {}
        for endpoint_id in await self.free(node_id, endpoint_ids):
            owned = self._owned(endpoint_id)
            owned.node, owned.term = node_id, owned.term + 1
            since = owned.given_back_at
            taken[endpoint_id] = Taken(term=owned.term, quiet_for=None if since is None else self.clock.now() - since)
        return taken

    async def give_back(self, node_id: str, endpoint_ids: Sequence[str], *, tell: bool) -> None:
        await self._answer()
        self._free(node_id, [id_ for id_ in endpoint_ids if self._owned(id_).node == node_id], tell=tell)

    def owned_by(self, node_id: str) -> list[str]:
        return [id_ for id_, owned in self.owners.items() if owned.node == node_id]

    def _free(self, node_id: str, endpoint_ids: Sequence[str], *, tell: bool) -> None:
        for endpoint_id in endpoint_ids:
            owned = self._owned(endpoint_id)
            owned.node, owned.given_back_at = None, self.clock.now()
        if tell and endpoint_ids:
            self.exchange.pass_on(Hint(kind="free", endpoint_ids=tuple(endpoint_ids), by=node_id), None)

    def _owned(self, endpoint_id: str) -> Owned:
        return self.owners.setdefault(endpoint_id, Owned())

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.fail is not None:
            raise self.fail


class FakeExchange:
    """Carries hints between the processes of a test, unless it `is_cut`."""

    def __init__(self) -> None:
        self.is_cut = False
        self.said: list[Hint] = []
        self.mouths: list[FakeHints] = []

    def hints(self) -> "FakeHints":
        self.mouths.append(made := FakeHints(self))
        return made

    def pass_on(self, hint: Hint, sender: "FakeHints | None") -> None:
        self.said.append(hint)
        if not self.is_cut:
            for mouth in self.mouths:
                if mouth is not sender:
                    mouth.listener(hint)


class FakeHints:
    """`gateway.sending.sharing.Hints`."""

    def __init__(self, exchange: FakeExchange) -> None:
        self._exchange = exchange
        self.listener: Callable[[Hint], None] = lambda _: None

    def say(self, kind: HintKind, endpoint_ids: Iterable[str]) -> None:
        self._exchange.pass_on(Hint(kind=kind, endpoint_ids=tuple(sorted(endpoint_ids))), self)

    def listen(self, listener: Callable[[Hint], None]) -> None:
        self.listener = listener
