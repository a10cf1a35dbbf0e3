"""Every hot statement has its index in PostgreSQL too, partial ones included, among rows enough to need one.

Whether to use it is the planner's business, by how many rows there are; here it is kept from reading whole tables where
it could do otherwise.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import text

from gateway.storage.database import Transaction
from gateway.storage.tables import metadata
from tests.storage.arrange import Stores, a_settlement
from tests.storage.listening import listening
from tests.storage.test_query_plans import HOT, Scene, Work

INDEXES = {str(index.name) for table in metadata.tables.values() for index in table.indexes}
SMALL = {"log", "cursors"}
"""Tables of a row or two."""
WHOLE = {
    "lanes": {"subscriptions"},
    "how all stand": {"delivery_counts", "subscriptions"},
    **{name: {"tallies"} for name, (_, carriers) in HOT.items() if "SCAN tallies" in carriers},
}
"""What is asked for all rows there are."""

# Copies of rows that are there, each with what makes it another.
_CROWD = """
    INSERT INTO events SELECT made.*
        FROM events one CROSS JOIN generate_series(1000, 6000) n CROSS JOIN jsonb_populate_record(one,
            jsonb_build_object('cursor', n, 'id', 'evt_' || n, 'library_id', 'lib' || n % 50,
                'accepted_at', one.accepted_at + n)) made
        WHERE one.cursor = 1;
    UPDATE log SET head = 6000;
    INSERT INTO deliveries SELECT made.*
        FROM deliveries one CROSS JOIN generate_series(1000, 6000) n CROSS JOIN jsonb_populate_record(one,
            jsonb_build_object('id', 'dlv_' || n, 'subscription_id', 'sub_' || n % 100, 'cursor', n,
                'event_id', 'evt_' || n, 'library_id', 'lib' || n % 50, 'due_at', n, 'forced', n % 400 = 0,
                'status', CASE WHEN n % 50 = 0 THEN 'dead' WHEN n % 20 = 0 THEN 'pending' ELSE 'delivered' END)) made
        WHERE one.id = (SELECT min(id) FROM deliveries);
    ANALYZE;
"""


_OF_PARTITIONS = """
    SELECT inhrelid::regclass::text AS part, inhparent::regclass::text AS whole FROM pg_inherits
"""
"""Partitions and their indexes, and what each is one of."""


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


@asynccontextmanager
async def explained(stores: Stores, url: str) -> AsyncIterator[list[str]]:
    """How PostgreSQL goes about each statement that is sent meanwhile."""
    steps: list[str] = []
    with listening(stores.database) as sent:
        yield steps
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET enable_seqscan = off")
        for statement, values in sent:
            if statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
                steps += [row[0] for row in await connection.fetch(f"EXPLAIN {statement}", *values)]
        whole = {str(row["part"]): str(row["whole"]) for row in await connection.fetch(_OF_PARTITIONS)}
    finally:
        await connection.close()
    steps[:] = [re.sub(r"\w+", lambda name: whole.get(name[0], name[0]), step) for step in steps]


def read_whole(steps: list[str]) -> set[str]:
    """Tables of which every row is looked at."""
    return {step.split("Seq Scan on ")[1].split(maxsplit=1)[0] for step in steps if "Seq Scan on " in step}


async def crowd(transaction: Transaction) -> None:
    await execute_all(transaction, _CROWD)


async def execute_all(transaction: Transaction, statements: str) -> None:
    for statement in statements.split(";\n"):
        if statement.strip():
            await transaction.connection.execute(text(statement))


async def own(scene: Scene) -> None:
    nodes = scene.stores.database.nodes
    assert nodes is not None
    async with nodes.joined() as member:
        await nodes.free(member.node_id, [scene.subscription.id])
        await nodes.take(member.node_id, [scene.subscription.id])
        await nodes.give_back(member.node_id, [scene.subscription.id], tell=False)


async def settle_in_term(scene: Scene) -> None:
    await scene.stores.deliveries.settle([a_settlement(scene.pending, term=1)])


async def count_nodes(scene: Scene) -> None:
    assert scene.stores.database.nodes is not None
    await scene.stores.database.nodes.census()


# Only here do several processes share the sending: what is done, the tables that are read whole, and the indexes.
SHARED: dict[str, tuple[Work, set[str], set[str]]] = {
    "own lanes": (own, set(), {"lane_owners_pkey", "nodes_pkey"}),
    "settle in a term": (settle_in_term, set(), {"lane_owners_pkey"}),
    "count nodes and their lanes": (count_nodes, {"nodes"}, {"lane_owners_node"}),  # as many as there are processes
}
_OWNERS = """
    INSERT INTO nodes SELECT 'node_' || n, 9000000000000000, false FROM generate_series(1, 20) n;
    INSERT INTO lane_owners SELECT 'sub_' || n, CASE WHEN n % 9 = 0 THEN 'node_' || n % 20 END, 1, 0
        FROM generate_series(1, 6000) n;
    ANALYZE;
"""


@pytest.mark.parametrize("name", SHARED)
async def test_it_has_its_index_where_several_send(stores: Stores, url: str, name: str) -> None:
    work, whole, indexes = SHARED[name]
    scene = await Scene.set(stores)
    await stores.database.write(crowd)
    await stores.database.write(lambda transaction: execute_all(transaction, _OWNERS))
    async with explained(stores, url) as steps:
        await work(scene)
    plan = "\n".join(steps)
    assert steps
    assert read_whole(steps) - SMALL <= whole, plan
    assert {index for index in indexes if index not in plan} == set(), plan


@pytest.mark.parametrize("name", HOT)
async def test_it_has_its_index(stores: Stores, url: str, name: str) -> None:
    work, carriers = HOT[name]
    scene = await Scene.set(stores)
    await stores.database.write(crowd)
    async with explained(stores, url) as steps:
        await work(scene)
    plan = "\n".join(steps)
    assert steps
    assert read_whole(steps) - SMALL <= WHOLE.get(name, set()), plan
    assert {index for index in carriers & INDEXES if index not in plan} == set(), plan


async def test_reading_everything_would_be_noticed(stores: Stores, url: str) -> None:
    async with explained(stores, url) as steps, stores.database.reading() as connection:
        await connection.execute(text("SELECT * FROM deliveries WHERE type = 'a' ORDER BY due_at"))
    assert read_whole(steps) == {"deliveries"}
