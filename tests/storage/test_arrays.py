"""Many rows as one statement in PostgreSQL: what it becomes, and that it does the same."""

from contextlib import suppress
from typing import Any

import asyncpg
import pytest
from sqlalchemy import bindparam, delete, insert, select, text, update

from gateway.errors import StorageUnavailable
from gateway.storage.database import Database, Transaction
from gateway.storage.dialects import insert_new, upsert
from gateway.storage.engines.postgres.arrays import at_once
from gateway.storage.tables import keys, vault
from tests.builders import NOON
from tests.storage.listening import listening


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


@pytest.mark.parametrize(
    ("one", "many", "changed_by"),
    [
        (
            "INSERT INTO t (a, b) VALUES ($1::BIGINT, $2::DOUBLE PRECISION)",
            "INSERT INTO t (a, b) SELECT v.p1, v.p2 FROM unnest($1::BIGINT[], $2::DOUBLE PRECISION[]) AS v(p1, p2)",
            (),
        ),
        (
            "INSERT INTO t (a) VALUES ($1::BYTEA) ON CONFLICT (a) DO UPDATE SET b = 1",
            "INSERT INTO t (a) SELECT v.p1 FROM unnest($1::BYTEA[]) AS v(p1) ON CONFLICT (a) DO UPDATE SET b = 1",
            (),
        ),
        (
            "UPDATE t SET a=$1::BIGINT WHERE t.b = $2::VARCHAR AND t.c = 'x'",
            "UPDATE t SET a=v.p1 FROM unnest($1::BIGINT[], $2::VARCHAR[]) AS v(p1, p2) WHERE t.b = v.p2 AND t.c = 'x'",
            (1,),
        ),
        (
            "DELETE FROM t WHERE t.a = $1::BIGINT AND t.b = $2::VARCHAR",
            "DELETE FROM t USING unnest($1::BIGINT[], $2::VARCHAR[]) AS v(p1, p2) WHERE t.a = v.p1 AND t.b = v.p2",
            (0, 1),
        ),
    ],
)
def test_a_statement_for_one_row_becomes_one_for_many(one: str, many: str, changed_by: tuple[int, ...]) -> None:
    found = at_once(one)
    assert found is not None
    assert (found.sql, found.keys) == (many, changed_by)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a FROM t WHERE b = $1::BIGINT",
        "INSERT INTO t (a) VALUES (lower($1::VARCHAR))",
        "UPDATE t SET a=$1 WHERE b = $2::BIGINT",
        "UPDATE t SET a=$1::BIGINT",
        "DELETE FROM t WHERE a = 1",
    ],
)
def test_what_is_of_another_shape_is_left_alone(sql: str) -> None:
    assert at_once(sql) is None


def a_key(id_: str, **but: Any) -> dict[str, Any]:
    made = {"id": id_, "name": f"of {id_}", "scopes": {"read"}, "libraries": None, "created_at": NOON}
    return {**made, "hash": id_.encode(), **but}


async def _in(database: Database, statement: Any, rows: list[dict[str, Any]]) -> tuple[list[str], int]:
    """The statements that it took, and how many rows were changed."""

    async def work(transaction: Transaction) -> int:
        return (await transaction.connection.execute(statement, rows)).rowcount

    with listening(database) as sent:
        changed = await database.write(work)
    return [sql for sql, _ in sent if sql not in {"BEGIN", "COMMIT"}], changed


async def _names(database: Database) -> dict[str, str]:
    async with database.reading() as connection:
        return dict((await connection.execute(select(keys.c.id, keys.c.name))).all())


async def test_all_rows_are_done_by_one_statement_whatever_is_in_them(database: Database) -> None:
    rows = [a_key("a"), a_key("b", libraries={"x", "ü"}), a_key("c", name="", hash=b"\0\xff")]
    sent, changed = await _in(database, insert(keys), rows)
    assert (len(sent), changed) == (1, 3)
    async with database.reading() as connection:
        found = (await connection.execute(select(keys).order_by(keys.c.id))).all()
    assert [(row.name, row.libraries, row.hash, row.created_at) for row in found] == [
        ("of a", None, b"a", NOON),
        ("of b", frozenset({"x", "ü"}), b"b", NOON),
        ("", None, b"\0\xff", NOON),
    ]
    renamed = update(keys).where(keys.c.id == bindparam("of")).values(name=bindparam("new"))
    sent, changed = await _in(database, renamed, [{"of": id_, "new": f"new {id_}"} for id_ in ("a", "c", "nobody")])
    assert (len(sent), changed) == (1, 2)
    assert await _names(database) == {"a": "new a", "b": "of b", "c": "new c"}
    sent, changed = await _in(database, delete(keys).where(keys.c.id == bindparam("of")), [{"of": "a"}, {"of": "b"}])
    assert (len(sent), changed) == (1, 2)


async def test_what_is_changed_twice_is_so_in_turn(database: Database) -> None:
    await _in(database, insert(keys), [a_key("a")])
    renamed = (
        update(keys).where(keys.c.id == bindparam("of"), keys.c.name == bindparam("old")).values(name=bindparam("new"))
    )
    steps = [{"of": "a", "old": "of a", "new": "second"}, {"of": "a", "old": "of a", "new": "never"}]
    await _in(database, renamed, steps)
    assert await _names(database) == {"a": "second"}


async def test_rows_that_are_there_are_passed_over_or_replaced(database: Database) -> None:
    async def both(transaction: Transaction) -> None:
        connection = transaction.connection
        await connection.execute(insert(vault), [{"name": "a", "value": b"1"}, {"name": "b", "value": b"1"}])
        fresh = [{"name": "b", "value": b"2"}, {"name": "c", "value": b"2"}]
        await connection.execute(insert_new(connection, vault), fresh)
        await connection.execute(upsert(connection, vault), [{"name": name, "value": b"3"} for name in ("c", "d")])

    await database.write(both)
    async with database.reading() as connection:
        found = dict((await connection.execute(select(vault.c.name, vault.c.value))).all())
    assert found == {"a": b"1", "b": b"1", "c": b"3", "d": b"3"}


async def test_a_transaction_that_the_server_has_given_up_is_not_taken_for_committed(database: Database) -> None:
    async def work(transaction: Transaction) -> None:
        await transaction.connection.execute(insert(keys), [a_key("a")])
        with suppress(asyncpg.UndefinedTableError):  # no store does that; if one did, it is not to go unseen
            await transaction.connection.execute(text("SELECT * FROM nowhere"))

    with pytest.raises(StorageUnavailable, match="ROLLBACK"):
        await database.write(work)
    assert await _names(database) == {}
