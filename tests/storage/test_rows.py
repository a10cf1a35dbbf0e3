"""Many rows, some at a time, in SQLite: what a statement becomes, and that it does the same."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import bindparam, insert, select, update

from gateway.storage.database import Database, Transaction
from gateway.storage.dialects import insert_new, upsert
from gateway.storage.engines.sqlite.connection import DIALECT
from gateway.storage.engines.sqlite.rows import some_at_a_time
from gateway.storage.settling import _UPDATE_PENDING
from gateway.storage.tables import vault


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def raw() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
        yield connection


def run(raw: sqlite3.Connection, sql: str, rows: list[tuple[object, ...]]) -> list[int]:
    """How many rows each statement changed."""
    portions = some_at_a_time(sql, rows)
    assert portions is not None
    return [raw.execute(some, values).rowcount for some, values in portions]


def test_an_insert_is_done_in_a_few_sizes_and_in_order(raw: sqlite3.Connection) -> None:
    rows = [(number, f"row {number}") for number in range(64 + 16 + 4 + 3)]
    assert run(raw, "INSERT INTO t (a, b) VALUES (?, ?)", [*rows]) == [64, 16, 4, 1, 1, 1]
    assert raw.execute("SELECT a, b FROM t ORDER BY rowid").fetchall() == rows


def test_of_a_key_that_comes_twice_the_last_is_kept(raw: sqlite3.Connection) -> None:
    sql = "INSERT INTO t (a, b) VALUES (?, ?) ON CONFLICT (a) DO UPDATE SET b = excluded.b"
    run(raw, sql, [(1, "first"), (1, "second"), (2, "other"), (1, "last")])
    assert raw.execute("SELECT a, b FROM t ORDER BY a").fetchall() == [(1, "last"), (2, "other")]


def test_an_update_changes_each_row_to_its_own_value(raw: sqlite3.Connection) -> None:
    run(raw, "INSERT INTO t (a, b) VALUES (?, ?)", [(number, "old") for number in range(20)])
    changes: list[tuple[object, ...]] = [(f"new {number}", number) for number in range(5, 25)]
    assert run(raw, "UPDATE t SET b=? WHERE t.a = ? AND t.b = 'old'", changes) == [15, 0]
    found = dict(raw.execute("SELECT a, b FROM t").fetchall())
    assert found == {number: "old" if number < 5 else f"new {number}" for number in range(20)}


@pytest.mark.parametrize(
    "sql",
    ["DELETE FROM t WHERE a = ?", "UPDATE t SET b=?", "INSERT INTO t (a) SELECT ?", "SELECT * FROM t WHERE a = ?"],
)
def test_what_is_of_another_shape_is_left_alone(sql: str) -> None:
    assert some_at_a_time(sql, [(1,), (2,)]) is None


async def test_what_is_changed_twice_is_so_in_turn(database: Database) -> None:
    rows = [{"name": f"{number:03}", "value": b"0"} for number in range(100)]
    renamed = update(vault).where(vault.c.name == bindparam("of")).values(name=bindparam("new"))

    async def work(transaction: Transaction) -> int:
        connection = transaction.connection
        await connection.execute(insert(vault), rows)
        await connection.execute(insert_new(connection, vault), [{**row, "value": b"1"} for row in rows])
        await connection.execute(upsert(connection, vault), [{**row, "value": b"2"} for row in rows[50:]])
        await connection.execute(renamed, [{"of": "000", "new": new} for new in ("a", "never", "never", "never")])
        return (
            await connection.execute(renamed, [{"of": row["name"], "new": f"x{row['name']}"} for row in rows])
        ).rowcount

    assert await database.write(work) == 99
    async with database.reading() as connection:
        found = dict((await connection.execute(select(vault.c.name, vault.c.value))).all())
    assert found == {"a": b"0"} | {f"x{number:03}": b"0" if number < 50 else b"2" for number in range(1, 100)}


async def test_settling_many_goes_by_their_keys(database: Database, path: Path) -> None:
    sql = str(_UPDATE_PENDING.compile(dialect=DIALECT))
    portions = some_at_a_time(sql, [tuple(range(at, at + sql.count("?"))) for at in range(64)])
    assert portions is not None
    many, values = next(portions)
    with closing(sqlite3.connect(path)) as connection:
        steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {many}", values)]
    assert any(
        step.startswith("SEARCH deliveries USING INDEX sqlite_autoindex_deliveries_1 (id=?") for step in steps
    ), steps
    assert not any(step.startswith("SCAN deliveries") for step in steps), steps
