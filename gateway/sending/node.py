"""This process among those that share the sending, while one lease lasts: which lanes it owns, takes and gives back."""

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from datetime import datetime, timedelta

import structlog

from gateway.errors import StorageUnavailable
from gateway.ports.nodes import Census, HintKind, Membership, Nodes
from webhooks.clock import Clock
from webhooks.dispatcher import Dispatcher
from webhooks.ownership import Hold, Holder, share, surplus

LOOK_EVERY = timedelta(seconds=1)
"""How often a node looks whether it has its share."""
LEFT_FOR = timedelta(seconds=0.5)
"""How long a lane is left to nodes that have room, by one that has none."""

_logger = structlog.get_logger(__name__)


class Node:
    """This process as one that owns lanes, for as long as one lease lasts: `webhooks.ownership.Holder`."""

    def __init__(
        self,
        nodes: Nodes,
        member: Membership,
        make: Callable[[Holder], Dispatcher],
        say: Callable[[HintKind, Iterable[str]], None],
        *,
        clock: Clock,
    ) -> None:
        self.id = member.node_id
        self._nodes = nodes
        self._member = member
        self._say = say
        self._clock = clock
        self._holds: dict[str, Hold] = {}
        self._leaving: set[str] = set()
        """Held, and to be given back once their lanes have ended."""
        self._ended: set[str] = set()
        """Held, and their lanes have ended."""
        self._wanted: set[str] = set()
        self._asked_for: set[str] = set()
        """Wanted by who may be the only one to know: whoever owns them is to be told."""
        self._others: set[str] = set()
        """Owned by others, as far as is known."""
        self._left: dict[str, datetime] = {}
        """Nobody owned them then, and they were left to nodes that have room."""
        self._census = Census(nodes=1, lanes=0)
        self._held_then = 0
        self._looked_at: datetime | None = None
        self._departing = False
        self._shuffle: Callable[[list[str]], None] = random.shuffle
        self._news = asyncio.Event()
        self._owns_none = asyncio.Event()
        self.dispatcher = make(self)

    # --- for the dispatcher ------------------------------------------------------------------------------------------

    @property
    def may_send(self) -> bool:
        return self._member.lease.is_held

    def hold(self, endpoint_id: str) -> Hold | None:
        if self.owns(endpoint_id):
            return self._holds[endpoint_id]
        self._want(endpoint_id)
        return None

    def ended(self, endpoint_id: str) -> None:
        if endpoint_id in self._holds:
            self._ended.add(endpoint_id)
            self._news.set()

    # --- for everybody else ------------------------------------------------------------------------------------------

    def owns(self, endpoint_id: str) -> bool:
        """Whether its lane runs here, or could start."""
        return endpoint_id in self._holds and endpoint_id not in self._leaving and endpoint_id not in self._ended

    def wake(self, endpoint_id: str) -> bool:
        """False: it is another's, as far as is known."""
        if self.owns(endpoint_id):
            self.dispatcher.wake([endpoint_id])
        elif endpoint_id in self._others or self._departing:
            return False
        else:
            self._asked_for.add(endpoint_id)
            self._want(endpoint_id)
        return True

    def wake_or_want(self, endpoint_id: str) -> None:
        """There may be work for it, of which the others hear, too."""
        if self.owns(endpoint_id):
            self.dispatcher.wake([endpoint_id])
        elif endpoint_id not in self._others:
            self._want(endpoint_id)

    def look_at(self, endpoint_id: str) -> None:
        """Somebody has given it back, and may be about to end."""
        self._others.discard(endpoint_id)
        self._looked_at = None
        self._want(endpoint_id)

    async def serve(self, draining: asyncio.Event, *, patience_seconds: float) -> None:
        """Until the lease is over; or until *draining*, and then in good order."""
        async with AsyncExitStack() as stack:
            sending = asyncio.create_task(self.dispatcher.run(), name="sending")
            stack.push_async_callback(_ended, sending)
            stack.push_async_callback(self.dispatcher.drain, 0)
            owning = asyncio.create_task(self._own(), name="owning")
            stack.push_async_callback(_ended, owning)
            ends = [asyncio.create_task(event.wait()) for event in (self._member.is_over, draining)]
            for end in ends:
                stack.push_async_callback(_ended, end)
            await asyncio.wait([sending, owning, *ends], return_when=asyncio.FIRST_COMPLETED)
            for task in (sending, owning):
                if task.done():
                    task.result()
            if draining.is_set() and self.may_send:
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience_seconds):
                        await self._depart()

    # --- owning ------------------------------------------------------------------------------------------------------

    def _want(self, endpoint_id: str) -> None:
        if not self._departing:
            self._wanted.add(endpoint_id)
            self._news.set()

    async def _own(self) -> None:
        while True:
            self._news.clear()
            now = self._clock.now()
            try:
                await self._give_back()
                if self._looked_at is None or now >= self._looked_at + LOOK_EVERY:
                    self._looked_at = now
                    await self._balance()
                await self._take()
            except StorageUnavailable as error:
                _logger.warning("node.waiting", node=self.id, error=error.detail)
                self._news.clear()
            await self._clock.wait(self._news, now + LOOK_EVERY)

    async def _give_back(self) -> None:
        for tell in (True, False):
            if ended := [id_ for id_ in self._ended if (id_ in self._leaving) is tell]:
                await self._nodes.give_back(self.id, ended, tell=tell)
                self._ended.difference_update(ended)
                self._leaving.difference_update(ended)
                for endpoint_id in ended:
                    del self._holds[endpoint_id]
        if not self._holds:
            self._owns_none.set()

    async def _balance(self) -> None:
        self._census, self._held_then = await self._nodes.census(), len(self._holds)
        staying = [id_ for id_ in self._holds if self.owns(id_)]
        for endpoint_id in staying[: surplus(len(staying), share(self._census.lanes, self._census.nodes))]:
            self._leave(endpoint_id)

    async def _take(self) -> None:
        wanted = [id_ for id_ in self._wanted if id_ not in self._holds]
        self._wanted.difference_update(wanted)
        asked_for = self._asked_for.intersection(wanted)
        self._asked_for.difference_update(wanted)
        if not wanted:
            return
        free = await self._nodes.free(self.id, wanted)
        self._others.difference_update(free)
        self._others.update(others := set(wanted) - free)
        if told := asked_for & others:
            self._say("wake", told)
        chosen = self._choose(free)
        if left := asked_for & (free - set(chosen)):
            self._say("wake", left)
        if not chosen:
            return
        taken = await self._nodes.take(self.id, chosen)
        now = self._clock.now()
        for endpoint_id, each in taken.items():
            quiet_since = None if each.quiet_for is None else now - each.quiet_for
            self._holds[endpoint_id] = Hold(term=each.term, quiet_since=quiet_since)
            if self._departing:
                self._leaving.add(endpoint_id)
                self._ended.add(endpoint_id)
                self._news.set()
        self._owns_none.clear()
        self._others.update(set(chosen) - taken.keys())
        self.dispatcher.wake(id_ for id_ in taken if self.owns(id_))

    def _choose(self, free: Iterable[str]) -> list[str]:
        """Of those that nobody owns as many as it has room for, and those that nobody else has taken meanwhile."""
        now = self._clock.now()
        candidates = sorted(free)
        self._shuffle(candidates)  # or all would choose the same ones
        lanes = self._census.lanes - self._held_then + len(self._holds) + len(candidates)
        room = share(lanes, self._census.nodes) - len(self._holds)
        since = now - LEFT_FOR
        chosen = [id_ for n, id_ in enumerate(candidates) if n < room or self._left.get(id_, now) <= since]
        for endpoint_id in candidates:
            self._left.setdefault(endpoint_id, now)
        kept = now - 10 * LOOK_EVERY
        self._left = {id_: at for id_, at in self._left.items() if at > kept and id_ not in chosen}
        return chosen

    def _leave(self, endpoint_id: str) -> None:
        self._leaving.add(endpoint_id)
        self.dispatcher.leave(endpoint_id)

    async def _depart(self) -> None:
        """Give back every lane as soon as it has ended."""
        self._departing = True
        self._wanted.clear()
        await self._member.depart()
        for endpoint_id in list(self._holds):
            self._leave(endpoint_id)
        self._news.set()
        await self._owns_none.wait()


async def _ended(task: asyncio.Task[object]) -> None:
    task.cancel()
    await asyncio.wait([task])
