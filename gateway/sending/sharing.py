"""Sending, shared with other processes: each owns some of the lanes, and sends for those alone.

    joined ──▶ take what nobody owns, as long as it is no more than its share ──▶ dispatcher
       ▲       give back: lanes without work · what is more than its share · all of them, when it ends
       │                  └─ in good order: attempts in flight have ended, and are settled
       └── its lease has lapsed: whatever it owned others take in time, and it begins anew

Who owns a lane is decided in the database, when it is taken. What is known here of other processes only says whom to
hint at what, and may be wrong: each looks once a second for what is due and has no owner.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack

import structlog

from gateway.ports.nodes import Hint, Hints, Nodes
from gateway.sending.node import Node
from webhooks.clock import Clock, SystemClock
from webhooks.deliveries import Delivery
from webhooks.dispatcher import Dispatcher
from webhooks.ownership import Holder

PATIENCE_SECONDS = 3.0
"""How long attempts in flight get when the process ends."""

_logger = structlog.get_logger(__name__)


class SharedSending:
    """`gateway.sending.sending.Sending`. *make* answers a dispatcher that sends what its holder holds."""

    def __init__(
        self,
        nodes: Nodes,
        hints: Hints,
        make: Callable[[Holder], Dispatcher],
        *,
        clock: Clock | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._nodes = nodes
        self._hints = hints
        self._make = make
        self._clock = clock or SystemClock()
        self._patience_seconds = patience_seconds
        self._node: Node | None = None
        self._draining = asyncio.Event()
        self._is_out = asyncio.Event()
        self._is_out.set()
        hints.listen(self._heard)

    @property
    def lanes(self) -> int:
        return self._node.dispatcher.lanes if self._node else 0

    @property
    def in_flight(self) -> int:
        return self._node.dispatcher.in_flight if self._node else 0

    def wake(self, endpoint_ids: Iterable[str]) -> None:
        ids = list(endpoint_ids)
        if self._node is not None:
            ids = [id_ for id_ in ids if not self._node.wake(id_)]
        if ids:
            self._hints.say("wake", ids)

    def offer(self, fresh: Mapping[str, Sequence[Delivery]]) -> None:
        node = self._node
        if node is None:
            self._hints.say("wake", fresh)
            return
        if owned := {id_: deliveries for id_, deliveries in fresh.items() if node.owns(id_)}:
            node.dispatcher.offer(owned)
        if len(owned) < len(fresh):
            self.wake(id_ for id_ in fresh if id_ not in owned)

    def is_stuck(self, endpoint_id: str) -> bool:
        return self._node is not None and self._node.dispatcher.is_stuck(endpoint_id)

    def changed(self, endpoint_id: str) -> None:
        if self._node is not None and self._node.owns(endpoint_id):
            self._node.dispatcher.changed(endpoint_id)
        else:
            self._hints.say("changed", [endpoint_id])

    def noticed(self, endpoint_id: str) -> None:
        if self._node is not None and self._node.owns(endpoint_id):
            self._node.dispatcher.changed(endpoint_id)

    async def drain(self) -> None:
        self._draining.set()
        await self._is_out.wait()

    async def run(self) -> None:
        while not self._draining.is_set():
            async with AsyncExitStack() as stack:
                stack.callback(self._is_out.set)
                member = await stack.enter_async_context(self._nodes.joined())
                self._is_out.clear()
                node = Node(self._nodes, member, self._make, self._hints.say, clock=self._clock)
                self._node = node
                try:
                    await node.serve(self._draining, patience_seconds=self._patience_seconds)
                finally:
                    self._node = None

    def _heard(self, hint: Hint) -> None:
        node = self._node
        if node is None or hint.by == node.id:
            return
        for endpoint_id in hint.endpoint_ids:
            if hint.kind == "free":
                node.look_at(endpoint_id)
            elif hint.kind == "wake":
                node.wake_or_want(endpoint_id)
            elif node.owns(endpoint_id):
                node.dispatcher.changed(endpoint_id)
