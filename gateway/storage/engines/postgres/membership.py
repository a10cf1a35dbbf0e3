"""One process as a node: its row, renewed in time over a connection of its own, and gone in the end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import structlog

from gateway.ports.nodes import HINTS_CHANNEL, hints
from gateway.storage.engines.postgres.server import FAULTS, connect, terminate
from webhooks.ownership import LEASE_SECONDS, RENEW_SECONDS, Lease

ASK_SECONDS = 1.0
"""How often one that cannot reach the database tries."""
END_SECONDS = 0.5
"""For saying that it ends. It is on its way out, and the others find out by themselves."""
KEPT_SECONDS = 86_400
"""How long the row of a node that vanished is kept."""

_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_LEASE = f"{_NOW} + {int(LEASE_SECONDS * 1_000_000)}"
_JOIN = f"INSERT INTO nodes (id, expires_at, leaving) VALUES ($1, {_LEASE}, false)"  # noqa: S608 - constants
_RENEW = f"UPDATE nodes SET expires_at = {_LEASE} WHERE id = $1 AND expires_at > {_NOW} RETURNING id"  # noqa: S608
_DEPART = "UPDATE nodes SET leaving = true WHERE id = $1"
# Locked in the order in which settlements lock them.
_OWNED = "SELECT subscription_id FROM lane_owners WHERE node = ANY($1::text[]) ORDER BY subscription_id FOR UPDATE"
_FREE = (
    f"UPDATE lane_owners SET node = NULL, released_at = {_NOW} "  # noqa: S608 - constants
    "WHERE node = ANY($1::text[]) RETURNING subscription_id"
)
_END = "DELETE FROM nodes WHERE id = ANY($1::text[])"
_TELL = "SELECT pg_notify($1, $2)"
_SWEEP = f"DELETE FROM nodes WHERE expires_at < {_NOW} - {KEPT_SECONDS * 1_000_000}"  # noqa: S608 - constants
_SWEEP_LANES = """
    DELETE FROM lane_owners WHERE node IS NULL
        AND NOT EXISTS (SELECT FROM subscriptions WHERE subscriptions.id = lane_owners.subscription_id)
"""

_logger = structlog.get_logger(__name__)


class Member:
    """`gateway.nodes.Membership`."""

    def __init__(self, url: str, node_id: str, former: set[str], clock: Callable[[], float]) -> None:
        self.node_id = node_id
        self.is_over = asyncio.Event()
        self._url = url
        self._former = former
        self._clock = clock
        self._turn = asyncio.Lock()
        self._connection: asyncpg.Connection | None = None
        self._lease: Lease | None = None

    @property
    def lease(self) -> Lease:
        if self._lease is None:
            raise RuntimeError("it has not joined yet")
        return self._lease

    async def join(self) -> None:
        """Whenever that may be."""
        is_away = False
        while True:
            try:
                async with asyncio.timeout(LEASE_SECONDS / 2):
                    await self._join()
                return
            except FAULTS as error:
                if not is_away:
                    _logger.warning("node.database_away", error=repr(error))
                is_away = True
                self.close()
                await asyncio.sleep(ASK_SECONDS)

    async def keep(self) -> None:
        """Renew the lease until it is over."""
        pause = RENEW_SECONDS
        while self.lease.is_held:
            await asyncio.sleep(min(pause, self.lease.seconds_left))
            try:
                async with asyncio.timeout(RENEW_SECONDS):
                    if not await self._renew():
                        break
                pause = RENEW_SECONDS
            except FAULTS as error:
                _logger.warning("node.not_renewed", node=self.node_id, error=repr(error))
                self.close()
                pause = ASK_SECONDS
        self.lease.end()
        self.is_over.set()
        _logger.warning("node.lease_lapsed", node=self.node_id)

    async def depart(self) -> None:
        try:
            async with asyncio.timeout(END_SECONDS):
                async with self._turn:
                    await (await self._connected()).execute(_DEPART, self.node_id)
        except FAULTS as error:
            _logger.warning("node.not_departed", node=self.node_id, error=repr(error))

    async def end(self) -> None:
        """Whatever it owns is free."""
        self.lease.end()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._end([self.node_id])
        except FAULTS as error:
            self._former.add(self.node_id)
            _logger.warning("node.not_ended", node=self.node_id, error=repr(error))
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            terminate(self._connection)
            self._connection = None

    async def _join(self) -> None:
        connection = await self._connected()
        former = sorted(self._former)
        await self._end(former)
        self._former.difference_update(former)
        await connection.execute(_SWEEP)
        await connection.execute(_SWEEP_LANES)
        asked_at = self._clock()
        await connection.execute(_JOIN, self.node_id)
        self._lease = Lease(asked_at, clock=self._clock)

    async def _renew(self) -> bool:
        async with self._turn:
            connection = await self._connected()
            asked_at = self._clock()
            return await connection.fetchval(_RENEW, self.node_id) is not None and self.lease.renew(asked_at)

    async def _end(self, node_ids: list[str]) -> None:
        async with self._turn, (connection := await self._connected()).transaction():
            await connection.execute(_OWNED, node_ids)
            freed = await connection.fetch(_FREE, node_ids)
            await connection.execute(_END, node_ids)
            for message in hints("free", (row["subscription_id"] for row in freed), by=self.node_id):
                await connection.execute(_TELL, HINTS_CHANNEL, message)

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._url)
        return self._connection


@asynccontextmanager
async def join(url: str, node_id: str, former: set[str], *, clock: Callable[[], float]) -> AsyncIterator[Member]:
    """See `gateway.nodes.Nodes.joined`. *former* are nodes that this process was and nobody has ended."""
    member = Member(url, node_id, former, clock)
    try:
        await member.join()
    except BaseException:
        member.close()
        raise
    keep = asyncio.create_task(member.keep(), name="lease")
    _logger.info("node.joined", node=node_id)
    try:
        yield member
    finally:
        keep.cancel()
        await asyncio.wait([keep])
        await member.end()
        _logger.info("node.left", node=node_id)
