"""SQLAlchemy's statements as sqlite3 takes them: what goes in and comes out is what its own engine makes of it."""

import gc
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Executable,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    create_engine,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.pool import StaticPool

from gateway.storage.columns import Json, Moment, Names, Span
from gateway.storage.engines.sqlite.connection import DIALECT, SqliteConnection
from gateway.storage.engines.sqlite.steps import InPlace
from gateway.storage.engines.statements import PREPARED_AT_MOST, Statements

THEN = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
things = Table(
    "things",
    MetaData(),
    Column("id", String, primary_key=True),
    Column("count", Integer),
    Column("at", Moment),
    Column("took", Span),
    Column("is_good", Boolean),
    Column("names", Names),
    Column("more", Json),
)
OTHERS = things.alias("others")
ROWS: list[dict[str, Any]] = [
    {
        "id": f"t{number}",
        "count": number,
        "at": THEN + timedelta(days=number),
        "took": timedelta(seconds=number),
        "is_good": number % 2 == 0,
        "names": frozenset({f"n{number}", "b"}),
        "more": {"deep": [number, None]},
    }
    for number in range(5)
] + [{"id": "nothing", **dict.fromkeys(["count", "at", "took", "is_good", "names", "more"])}]


@pytest.fixture
def raw() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as raw:
        things.metadata.create_all(create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool))
        yield raw


@pytest.fixture
def statements() -> Statements:
    return Statements(DIALECT)


@pytest.fixture
def connection(raw: sqlite3.Connection, statements: Statements) -> SqliteConnection:
    return SqliteConnection(raw, statements, InPlace(), begin=None)


def some_ids(*ids: str) -> Executable:
    return select(things.c.id).where(things.c.id.in_(ids)).order_by(things.c.id)


QUERIES: dict[str, tuple[Executable, dict[str, Any] | None]] = {
    "everything": (select(things).order_by(things.c.id), None),
    "values that stand in it": (select(things).where(things.c.at > THEN + timedelta(days=1), things.c.is_good), None),
    "values by name": (
        select(things.c.id, things.c.took).where(things.c.at <= bindparam("before")).limit(bindparam("most")),
        {"before": THEN + timedelta(days=3), "most": 2},
    ),
    "both": (
        select(things.c.id).where(things.c.count > 1, things.c.at < bindparam("before")),
        {"before": THEN + timedelta(days=4)},
    ),
    "a list that stands in it": (some_ids("t1", "t3", "no"), None),
    "an empty list": (some_ids(), None),
    "lists by name": (
        select(things.c.id, things.c.at).where(
            things.c.id.in_(bindparam("ids", expanding=True)),
            things.c.at.in_(bindparam("moments", expanding=True)),
            things.c.count < bindparam("most"),
        ),
        {"ids": ["t0", "t1", "t2"], "moments": [THEN, THEN + timedelta(days=2)], "most": 2},
    ),
    "functions and labels": (select(func.count(), func.max(things.c.at).label("last"), literal("x")), None),
    "columns of the same name": (
        select(things.c.id, OTHERS.c.id).join(OTHERS, OTHERS.c.count == things.c.count + 1).order_by(things.c.id),
        None,
    ),
    "text": (text("SELECT id, count AS number FROM things WHERE count = :count"), {"count": 3}),
    "text without rows": (text("SELECT id FROM things WHERE count = 99"), None),
}


@pytest.mark.parametrize("name", QUERIES)
async def test_rows_are_those_of_sqlalchemys_own_engine(
    raw: sqlite3.Connection, connection: SqliteConnection, name: str
) -> None:
    await connection.execute(insert(things), ROWS)
    statement, values = QUERIES[name]
    with create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool).connect() as theirs:
        expected = theirs.execute(statement, values).all()
    for _ in range(2):  # compiled, and known already
        assert list((await connection.execute(statement, values)).all()) == [tuple(row) for row in expected]


async def test_columns_are_attributes(connection: SqliteConnection) -> None:
    await connection.execute(insert(things), ROWS)
    row = (await connection.execute(select(things.c.id, things.c.at.label("moment")).where(things.c.count == 2))).one()
    assert (row.id, row.moment, row[0]) == ("t2", THEN + timedelta(days=2), "t2")
    found = await connection.execute(text("SELECT id AS name FROM things WHERE count = 1"))
    assert found.one().name == "t1"


async def test_changes_are_counted(connection: SqliteConnection) -> None:
    assert (await connection.execute(insert(things), ROWS)).rowcount == len(ROWS)
    by_name = update(things).where(things.c.id == bindparam("of")).values(count=bindparam("new"), took=timedelta(1))
    many = [{"of": "t1", "new": 7}, {"of": "t2", "new": 8}, {"of": "no", "new": 9}]
    assert (await connection.execute(by_name, many)).rowcount == 2
    assert await connection.scalar(select(things.c.took).where(things.c.count == 8)) == timedelta(1)
    assert (await connection.execute(delete(things).where(things.c.count > 6))).rowcount == 2
    assert await connection.scalar(select(things.c.id).where(things.c.count > 6)) is None


async def test_statements_that_read_alike_keep_their_own_values(connection: SqliteConnection) -> None:
    await connection.execute(insert(things), ROWS)
    for number in (1, 3, 2):
        statement = select(things.c.id).where(things.c.count == number, things.c.id.in_([f"t{number}", "t4"]))
        assert (await connection.execute(statement)).scalars().all() == [f"t{number}"]
    for ids in (["t1"], ["t2", "t3"], [], ["t4"], ["t0", "t1", "t2"], ["t0", "t1", "t2", "t3", "t4"]):
        assert (await connection.execute(some_ids(*ids))).scalars().all() == ids


async def test_one_statement_takes_values_of_different_names(connection: SqliteConnection) -> None:
    added = insert(things)
    await connection.execute(added, {"id": "a", "count": 1})
    await connection.execute(added, {"id": "b", "at": THEN})
    rows = await connection.execute(select(things.c.id, things.c.count, things.c.at).order_by(things.c.id))
    assert rows.all() == [("a", 1, None), ("b", None, THEN)]


async def test_what_is_asked_for_once_has_to_be_there_once(connection: SqliteConnection) -> None:
    await connection.execute(insert(things), ROWS)
    several, none = await connection.execute(some_ids("t1", "t2")), await connection.execute(some_ids())
    with pytest.raises(LookupError, match="2 rows"):
        several.one()
    with pytest.raises(LookupError, match="2 rows"):
        several.one_or_none()
    with pytest.raises(LookupError, match="0 rows"):
        none.scalar_one()
    assert none.one_or_none() is None


async def test_a_missing_value_is_named(connection: SqliteConnection) -> None:
    with pytest.raises(KeyError, match="before"):
        await connection.execute(QUERIES["values by name"][0], {"most": 2})


async def test_errors_are_sqlites_own(connection: SqliteConnection) -> None:
    await connection.execute(insert(things), {"id": "a"})
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        await connection.execute(insert(things), [{"id": "a"}])


async def test_no_more_is_remembered_than_there_may_be(connection: SqliteConnection, statements: Statements) -> None:
    await connection.execute(insert(things), ROWS)
    for number in range(PREPARED_AT_MOST + 20):
        statement = select(things.c.id, literal(number).label(f"label{number}")).where(things.c.count == 1)
        assert (await connection.execute(statement)).one() == ("t1", number)
    gc.collect()
    assert statements.known <= PREPARED_AT_MOST


async def test_listeners_hear_what_is_sent(connection: SqliteConnection, statements: Statements) -> None:
    heard: list[tuple[str, Any]] = []
    statements.listeners.append(lambda sql, values: heard.append((sql.split()[0], values)))
    await connection.execute(insert(things), [{"id": "a"}, {"id": "b"}])
    await connection.execute(some_ids("b"))
    assert heard == [("INSERT", ("a",)), ("SELECT", ("b",))]


async def test_the_transaction_begins_with_its_first_statement(raw: sqlite3.Connection, statements: Statements) -> None:
    connection = SqliteConnection(raw, statements, InPlace(), begin="BEGIN")
    assert not raw.in_transaction
    for _ in range(2):
        await connection.execute(some_ids())
        assert raw.in_transaction
