"""What befalls a cluster, one thing after the other, by chance: processes, servers and connections end or stand still.

         ┌─ kill -9, and started again                          ┌─ PostgreSQL crashes, NATS is killed: started again
gateway ─┼─ SIGTERM, and started again                   all ───┤
         └─ SIGSTOP for longer than its lease, SIGCONT          └─ connections cut: of one gateway, or of all
"""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from tests.e2e.processes import GatewayProcess
from tests.e2e.relay import Relay
from tests.e2e.waiting import eventually
from tests.servers.nats import NatsServer
from tests.servers.postgres import PostgresServer


@dataclass(slots=True, eq=False, kw_only=True)
class Member:
    """A gateway, and the ways to the servers that are its own."""

    gateway: GatewayProcess
    relays: Sequence[Relay]
    sends: bool
    is_asleep: bool = False
    woken: list[str] = field(default_factory=list)
    """What it said after each sleep, up to its new lease."""


class Trouble:
    """*asleep_seconds*: from, to."""

    def __init__(
        self,
        members: Sequence[Member],
        postgres: PostgresServer,
        nats: NatsServer,
        *,
        rand: random.Random,
        asleep_seconds: tuple[float, float],
    ) -> None:
        self._members = members
        self._postgres = postgres
        self._nats = nats
        self._rand = rand
        self._asleep_seconds = asleep_seconds
        self._nap: asyncio.Task[None] | None = None
        self._began_at = time.monotonic()
        self.diary: list[str] = []

    async def run(self) -> None:
        """All of it, each so often, in a random order; at the end everybody is up and awake."""
        steps: list[Callable[[], Awaitable[None]]] = [
            *[self._sleep] * 2,
            *[self._kill] * 3,
            *[self._terminate] * 1,
            *[self._cut] * 3,
            self._crash_postgres,
            self._kill_nats,
        ]
        self._rand.shuffle(steps)
        try:
            for step in steps:
                await asyncio.sleep(self._rand.uniform(0.3, 2))
                await step()
            await self._all_awake()
        finally:
            if self._nap is not None:
                self._nap.cancel()

    def _tell(self, what: str) -> None:
        self.diary.append(f"{time.monotonic() - self._began_at:5.1f} s: {what}")

    async def _sleep(self) -> None:
        await self._all_awake()
        member = self._rand.choice([member for member in self._members if member.sends])
        seconds = self._rand.uniform(*self._asleep_seconds)
        self._tell(f"{member.gateway.name} is stopped for {seconds:.1f} s")
        said = len(member.gateway.output)
        member.gateway.signal(signal.SIGSTOP)
        member.is_asleep = True
        self._nap = asyncio.create_task(self._wake(member, seconds, said))

    async def _wake(self, member: Member, seconds: float, said: int) -> None:
        await asyncio.sleep(seconds)
        member.gateway.signal(signal.SIGCONT)
        self._tell(f"{member.gateway.name} goes on")
        joined = "node.joined"
        await eventually(lambda: joined in member.gateway.output[said:], "it has a new lease", within=30)
        member.woken.append(member.gateway.output[said:].partition(joined)[0])
        member.is_asleep = False
        self._tell(f"{member.gateway.name} has a new lease")

    async def _all_awake(self) -> None:
        if self._nap is not None:
            await self._nap
            self._nap = None

    def _anybody(self) -> Member:
        return self._rand.choice([member for member in self._members if not member.is_asleep])

    async def _kill(self) -> None:
        gateway = self._anybody().gateway
        self._tell(f"{gateway.name} is killed")
        await asyncio.to_thread(gateway.kill)
        await self._start_again(gateway)

    async def _terminate(self) -> None:
        gateway = self._anybody().gateway
        self._tell(f"{gateway.name} is told to end")
        gateway.signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.wait, 6) == 0
        await self._start_again(gateway)

    async def _start_again(self, gateway: GatewayProcess) -> None:
        await asyncio.sleep(self._rand.uniform(0, 2))
        await asyncio.to_thread(gateway.start)
        self._tell(f"{gateway.name} is up again")

    async def _crash_postgres(self) -> None:
        self._tell("PostgreSQL crashes")
        await asyncio.to_thread(self._postgres.kill)
        await asyncio.sleep(self._rand.uniform(0, 1))
        await asyncio.to_thread(self._postgres.start)
        self._tell("PostgreSQL is up again")

    async def _kill_nats(self) -> None:
        self._tell("NATS is killed")
        await asyncio.to_thread(self._nats.kill)
        await asyncio.sleep(self._rand.uniform(0, 1))
        await asyncio.to_thread(self._nats.start)
        self._tell("NATS is up again")

    async def _cut(self) -> None:
        members = self._members if self._rand.random() < 0.3 else [self._anybody()]
        ends = sum(relay.cut() for member in members for relay in member.relays)
        self._tell(f"the connections of {', '.join(member.gateway.name for member in members)} are cut ({ends} ends)")
