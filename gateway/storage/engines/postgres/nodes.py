"""Nodes and the lanes that they own, in PostgreSQL.

    joined ──▶ renewed every 3 s ──▶ the end: lanes free, row gone, told to the others, in one commit
                    └─ too late, by either clock ──▶ over: it is never renewed again, and its lanes are taken in time

A lease that has lapsed stays so, which is why nobody who takes a lane has to wait for the one who had it.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, case, cast, extract, func, null, select, text, update
from typeid import TypeID

from gateway.ports.nodes import HINTS_CHANNEL, Census, Membership, Taken, hints
from gateway.storage.connection import Connection
from gateway.storage.database import Database, Transaction
from gateway.storage.dialects import insert_new
from gateway.storage.engines.postgres.membership import join
from gateway.storage.tables import lane_owners, nodes, subscriptions
from webhooks.ownership import seconds_awake_or_asleep

_IDS_AT_ONCE = 500  # parameters in one statement
_SECOND = 1_000_000


class PostgresNodes:
    """`gateway.nodes.Nodes`. *clock* is for leases."""

    def __init__(self, database: Database, url: str, *, clock: Callable[[], float] = seconds_awake_or_asleep) -> None:
        self._database = database
        self._url = url
        self._clock = clock
        self._former: set[str] = set()
        """Nodes that this process was, and could not say so when it ended to be them."""

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[Membership]:
        node_id = str(TypeID("node"))
        async with join(self._url, node_id, self._former, clock=self._clock) as member:
            yield member

    async def census(self) -> Census:
        async with self._database.reading() as connection:
            row = (await connection.execute(_CENSUS)).one()
        return Census(nodes=row.nodes, lanes=row.lanes)

    async def free(self, node_id: str, endpoint_ids: Sequence[str]) -> AbstractSet[str]:
        async with self._database.reading() as connection:
            return {row.id for some in _portions(endpoint_ids) for row in await _free(connection, node_id, some)}

    async def take(self, node_id: str, endpoint_ids: Sequence[str]) -> Mapping[str, Taken]:
        async def work(transaction: Transaction) -> Mapping[str, Taken]:
            taken: dict[str, Taken] = {}
            for some in _portions(endpoint_ids):
                taken |= await _take(transaction.connection, node_id, some)
            return taken

        return await self._database.write(work)

    async def give_back(self, node_id: str, endpoint_ids: Sequence[str], *, tell: bool) -> None:
        async def work(transaction: Transaction) -> None:
            connection = transaction.connection
            for some in _portions(endpoint_ids):
                mine = (lane_owners.c.node == node_id) & lane_owners.c.subscription_id.in_(some)
                rows = select(lane_owners.c.subscription_id).where(mine).order_by(lane_owners.c.subscription_id)
                held = (await connection.execute(rows.with_for_update())).scalars().all()
                these = lane_owners.c.subscription_id.in_(held)
                await connection.execute(update(lane_owners).where(these).values(node=None, released_at=_NOW))
            if tell:
                for message in hints("free", endpoint_ids, by=node_id):
                    await connection.execute(_TELL, {"channel": HINTS_CHANNEL, "message": message})

        # What a crash of the server takes back is taken again by who finds it its own.
        await self._database.write(work, durable=False)


async def _take(connection: Connection, node_id: str, endpoint_ids: Sequence[str]) -> Mapping[str, Taken]:
    known = [{"subscription_id": id_, "node": None, "term": 0} for id_ in endpoint_ids]
    await connection.execute(insert_new(connection, lane_owners), known)
    # Locked first, and judged in a statement of its own: a single one might judge by a row that is no longer so.
    asked = select(lane_owners.c.subscription_id).where(lane_owners.c.subscription_id.in_(endpoint_ids))
    locking = asked.order_by(lane_owners.c.subscription_id).with_for_update(skip_locked=True)
    locked = (await connection.execute(locking)).scalars().all()
    free = await _free(connection, node_id, locked)
    mine = lane_owners.c.subscription_id.in_([row.id for row in free])
    await connection.execute(update(lane_owners).where(mine).values(node=node_id, term=lane_owners.c.term + 1))
    return {row.id: Taken(term=row.term + 1, quiet_for=_quiet_for(row.quiet_for)) for row in free}


async def _free(connection: Connection, node_id: str, endpoint_ids: Sequence[str]) -> Sequence[Any]:
    found: Sequence[Any] = (await connection.execute(_is_free(node_id, endpoint_ids))).all()
    return found


def _is_free(node_id: str, endpoint_ids: Sequence[str]) -> Select[Any]:
    """Of those that *node_id* may take: the term, and for how long nobody can have sent for it."""
    owner, lapsed = lane_owners.c.node, nodes.c.expires_at
    over = lapsed + cast(subscriptions.c.timeout_seconds * _SECOND, BigInteger) <= _NOW
    quiet_since = case(
        (owner == node_id, _NOW),
        (owner.is_(None), lane_owners.c.released_at),
        (lapsed.is_not(None), lapsed),
        else_=null(),  # its row is kept for longer than the longest pace
    )
    return (
        select(
            subscriptions.c.id,
            func.coalesce(lane_owners.c.term, 0).label("term"),
            (_NOW - quiet_since).label("quiet_for"),
        )
        .outerjoin(lane_owners, lane_owners.c.subscription_id == subscriptions.c.id)
        .outerjoin(nodes, nodes.c.id == owner)
        .where(subscriptions.c.id.in_(endpoint_ids))
        .where(owner.is_(None) | (owner == node_id) | nodes.c.id.is_(None) | over)
    )


def _quiet_for(micros: int | None) -> timedelta | None:
    return None if micros is None else timedelta(microseconds=max(0, micros))


def _portions(ids: Sequence[str]) -> Sequence[Sequence[str]]:
    everything = sorted(ids)
    return [everything[start : start + _IDS_AT_ONCE] for start in range(0, len(everything), _IDS_AT_ONCE)]


_NOW: ColumnElement[int] = cast(extract("epoch", func.clock_timestamp()) * _SECOND, BigInteger)
_LIVE = nodes.c.leaving.is_(False) & (nodes.c.expires_at > _NOW)
_CENSUS = select(
    select(func.count()).select_from(nodes).where(_LIVE).scalar_subquery().label("nodes"),
    select(func.count())
    .select_from(lane_owners.join(nodes, nodes.c.id == lane_owners.c.node))
    .where(_LIVE)
    .scalar_subquery()
    .label("lanes"),
)
_TELL = text("SELECT pg_notify(:channel, :message)")
