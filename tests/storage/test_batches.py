"""Many rows in a few statements in SQLite: what they become, and that they do the same."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Executable, bindparam, insert, select, text, update

from gateway.storage.database import Database, Transaction
from gateway.storage.dialects import upsert
from gateway.storage.engines.sqlite.batches import batches
from gateway.storage.tables import keys, vault
from tests.builders import NOON


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("INSERT INTO t (a, b) VALUES (?, ?)", "INSERT INTO t (a, b) VALUES (?, ?), (?, ?)"),
        (
            "INSERT INTO t (a, b) VALUES (?, ?) ON CONFLICT (a) DO UPDATE SET b = excluded.b",
            "INSERT INTO t (a, b) VALUES (?, ?), (?, ?) ON CONFLICT (a) DO UPDATE SET b = excluded.b",
        ),
        (
            "UPDATE t SET a=?, c=0 WHERE t.b = ? AND t.c = 'x'",
            "UPDATE t SET a=v.column1, c=0 FROM (VALUES (?, ?), (?, ?)) AS v WHERE t.b = v.column2 AND t.c = 'x'",
        ),
    ],
)
def test_a_statement_for_one_row_becomes_one_for_some(one: str, two: str) -> None:
    assert list(batches(one, [(1, 2), (3, 4)])) == [(two, [1, 2, 3, 4])]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM t WHERE t.a = ? AND t.b = ?",
        "INSERT INTO t (a, b) VALUES (lower(?), ?)",
        "INSERT INTO t (a) VALUES (?) ON CONFLICT (a) DO UPDATE SET b = ?",
        "UPDATE t SET a=? WHERE t.b IN (?)",
    ],
)
def test_of_any_other_shape_it_is_done_row_by_row(sql: str) -> None:
    assert list(batches(sql, [(1, 2), (3, 4)])) == [(sql, [1, 2]), (sql, [3, 4])]


def test_an_sqlite_that_cannot_update_from_rows_does_so_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.storage.engines.sqlite.batches.UPDATES_FROM", False)
    sql = "UPDATE old SET a=? WHERE old.b = ?"
    assert list(batches(sql, [(1, 2), (3, 4)])) == [(sql, [1, 2]), (sql, [3, 4])]


def test_what_is_changed_twice_is_changed_in_turn() -> None:
    sql = "UPDATE t SET a=? WHERE t.b = ?"
    assert list(batches(sql, [(1, "same"), (2, "same")])) == [(sql, [1, "same"]), (sql, [2, "same"])]


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 64, 200])
def test_all_rows_are_done_in_their_order(rows: int) -> None:
    done = list(batches("INSERT INTO t (a) VALUES (?)", [(number,) for number in range(rows)]))
    assert [value for _, values in done for value in values] == list(range(rows))
    assert all(sql.count("?") == len(values) for sql, values in done)
    assert len(done) == rows // 64 + (rows % 64).bit_count()


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


def a_key(id_: str) -> dict[str, Any]:
    made = {"id": id_, "name": f"of {id_}", "scopes": {"read"}, "libraries": None, "created_at": NOON}
    return {**made, "hash": id_.encode()}


ROWS = 7
RENAMED = update(keys).where(keys.c.id == bindparam("of")).values(name=bindparam("new"))


async def _in(database: Database, statement: Executable, rows: list[dict[str, Any]]) -> int:
    """How many rows were changed."""

    async def work(transaction: Transaction) -> int:
        return (await transaction.connection.execute(statement, rows)).rowcount

    return await database.write(work)


async def _names(database: Database) -> dict[str, str]:
    async with database.reading() as connection:
        return dict((await connection.execute(select(keys.c.id, keys.c.name))).all())


async def test_they_do_what_one_by_one_would_and_say_how_many_were_changed(database: Database) -> None:
    ids = [f"key_{number}" for number in range(ROWS)]
    assert await _in(database, insert(keys), [a_key(id_) for id_ in ids]) == ROWS
    rows = [{"of": id_, "new": f"new {id_}"} for id_ in [*ids[1:], "nobody"]]
    assert await _in(database, RENAMED, rows) == ROWS - 1
    assert await _names(database) == {"key_0": "of key_0"} | {id_: f"new {id_}" for id_ in ids[1:]}
    twice = [{"of": "key_0", "new": f"{number}"} for number in range(ROWS)]
    assert await _in(database, RENAMED, twice) == ROWS
    assert (await _names(database))["key_0"] == str(ROWS - 1)


async def test_of_rows_with_the_same_key_the_last_replaces_the_others(database: Database) -> None:
    rows = [{"name": name, "value": value} for name, value in (("c", b"1"), ("d", b"1"), ("d", b"2"), ("c", b"2"))]

    async def put(transaction: Transaction) -> None:
        await transaction.connection.execute(upsert(transaction.connection, vault), rows)

    await database.write(put)
    async with database.reading() as connection:
        found = dict((await connection.execute(select(vault.c.name, vault.c.value))).all())
    assert found == {"c": b"2", "d": b"2"}


async def test_an_update_of_many_looks_each_up_by_its_key(database: Database) -> None:
    [(sql, _)] = batches("UPDATE keys SET name=? WHERE keys.id = ?", [("x", "a"), ("x", "b")])
    explained = f"EXPLAIN QUERY PLAN {sql}"

    async def plan(transaction: Transaction) -> list[str]:
        rows = (await transaction.connection.execute(text(explained.replace("?", "'x'")))).all()
        return [row.detail for row in rows]

    assert any(line.startswith("SEARCH keys USING COVERING INDEX") for line in await database.write(plan))
