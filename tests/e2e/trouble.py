"""What befalls a cluster, one thing after the other, by chance: processes, servers and connections end or stand still.

         ┌─ kill -9, and started again                          ┌─ PostgreSQL crashes, NATS is killed: started again
         ├─ SIGTERM, and started again                          ├─ connections cut: of one gateway, or of all
gateway ─┼─ SIGSTOP for longer than its lease, SIGCONT   all ───┘
         └─ nothing to and from the servers for as long
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

EXIT_SECONDS = 7
"""Five are promised; the machine is busy."""


@dataclass(slots=True, eq=False, kw_only=True)
class Member:
    """A gateway, and the ways to the servers that are its own."""

    gateway: GatewayProcess
    relays: Sequence[Relay]
    sends: bool
    is_away: bool = False
    """Stopped, or without a word to or from the servers."""
    back: list[str] = field(default_factory=list)
    """What it said each time that it was away or came back, up to its new lease."""


class Trouble:
    """*away_seconds*: from, to."""

    def __init__(
        self,
        members: Sequence[Member],
        postgres: PostgresServer,
        nats: NatsServer,
        *,
        rand: random.Random,
        away_seconds: tuple[float, float],
    ) -> None:
        self._members = members
        self._postgres = postgres
        self._nats = nats
        self._rand = rand
        self._away_seconds = away_seconds
        self._coming_back: asyncio.Task[None] | None = None
        self._began_at = time.monotonic()
        self.diary: list[str] = []

    async def run(self) -> None:
        """All of it, each so often, in a random order; at the end everybody is up and back."""
        steps: list[Callable[[], Awaitable[None]]] = [
            self._stop,
            self._silence,
            *[self._kill] * 2,
            self._terminate,
            *[self._cut] * 3,
            self._crash_postgres,
            self._kill_nats,
        ]
        self._rand.shuffle(steps)
        try:
            for step in steps:
                await asyncio.sleep(self._rand.uniform(0.3, 2))
                await step()
            await self._all_back()
        finally:
            if self._coming_back is not None:
                self._coming_back.cancel()

    def _tell(self, what: str) -> None:
        self.diary.append(f"{time.monotonic() - self._began_at:5.1f} s: {what}")

    async def _stop(self) -> None:
        await self._send_away(
            "is stopped",
            lambda member: member.gateway.signal(signal.SIGSTOP),
            lambda member: member.gateway.signal(signal.SIGCONT),
        )

    async def _silence(self) -> None:
        def hold(member: Member) -> None:
            for relay in member.relays:
                relay.hold()

        def let_go(member: Member) -> None:
            for relay in member.relays:
                relay.let_go()

        await self._send_away("hears nothing", hold, let_go)

    async def _send_away(self, what: str, leave: Callable[[Member], None], come_back: Callable[[Member], None]) -> None:
        """One that sends. Whatever else befalls the others meanwhile, two are never away at once."""
        await self._all_back()
        member = self._rand.choice([member for member in self._members if member.sends])
        seconds = self._rand.uniform(*self._away_seconds)
        self._tell(f"{member.gateway.name} {what} for {seconds:.1f} s")
        said = len(member.gateway.output)
        leave(member)
        member.is_away = True
        self._coming_back = asyncio.create_task(self._come_back(member, come_back, seconds, said))

    async def _come_back(self, member: Member, come_back: Callable[[Member], None], seconds: float, said: int) -> None:
        await asyncio.sleep(seconds)
        come_back(member)
        self._tell(f"{member.gateway.name} goes on")
        joined = "node.joined"
        await eventually(lambda: joined in member.gateway.output[said:], "it has a new lease", within=30)
        member.back.append(member.gateway.output[said:].partition(joined)[0])
        member.is_away = False
        self._tell(f"{member.gateway.name} has a new lease")

    async def _all_back(self) -> None:
        if self._coming_back is not None:
            await self._coming_back
            self._coming_back = None

    def _anybody(self) -> Member:
        return self._rand.choice([member for member in self._members if not member.is_away])

    async def _kill(self) -> None:
        gateway = self._anybody().gateway
        self._tell(f"{gateway.name} is killed")
        await asyncio.to_thread(gateway.kill)
        await self._start_again(gateway)

    async def _terminate(self) -> None:
        gateway = self._anybody().gateway
        self._tell(f"{gateway.name} is told to end")
        gateway.signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.wait, EXIT_SECONDS) == 0
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
