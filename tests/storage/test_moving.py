"""A SQLite database copied to PostgreSQL: all of it, exactly, however often it is cut short."""

import asyncio
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    Float,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    insert,
    select,
    text,
)

from gateway.errors import StorageUnavailable
from gateway.events import Cursor
from gateway.storage import migrations, moving
from gateway.storage.database import Transaction
from gateway.storage.engines import database_of, without_password
from gateway.storage.engines.postgres.server import as_alchemy
from gateway.storage.engines.sqlite import DatabaseInUse
from gateway.storage.moving import CopyCutShort, MoveRefused, _kept_as, _raw, copy, give_up
from gateway.storage.sealing import Seal
from gateway.storage.tables import deliveries, metadata, moves, tallies
from tests.builders import NOON, HandClock, a_draft
from tests.e2e.processes import COMMAND
from tests.e2e.waiting import eventually_answered
from tests.servers.postgres import PostgresServer
from tests.storage.arrange import Stores

TABLES = [table for table in metadata.tables.values() if table is not moves]
Contents = Mapping[str, list[tuple[Any, ...]]]


class Quiet:
    """Told how it goes; it stops the copy after some batches."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.left = stop_after
        self.rows: Mapping[str, int] = {}
        self.there: Mapping[str, int] = {}

    def begins(self, rows: Mapping[str, int], there: Mapping[str, int]) -> None:
        self.rows, self.there = rows, there

    def copied(self, table: str, rows: int) -> None:
        if self.left is not None:
            self.left -= 1
            if not self.left:
                raise ConnectionResetError(f"cut off after {rows} rows of {table}")

    def verifies(self) -> None:
        if self.left is not None:
            raise ConnectionResetError("cut off before the end")


@pytest.fixture
def url(path: Path) -> str:
    """The source."""
    return f"sqlite:///{path}"


@pytest.fixture
def into(postgres_url: str) -> str:
    return postgres_url


async def contents(url: str) -> Contents:
    """All rows of all tables as the database keeps them, by key."""
    async with database_of(url, seal=None, whole=False) as database, database.reading() as connection:
        return {
            table.name: sorted(map(tuple, await connection.execute(select(*map(_raw, table.c))))) for table in TABLES
        }


def _value(table: Table, name: str, number: int) -> object:
    """Something for this column that no other row has."""
    kind = _kept_as(table.c[name].type)
    if isinstance(kind, Boolean):
        return number % 2 == 0
    if isinstance(kind, SmallInteger):
        return number % 2
    if isinstance(kind, BigInteger):
        return 10**12 + number
    if isinstance(kind, Integer):
        return 10**6 + number
    if isinstance(kind, Float):
        return number + 0.1
    if isinstance(kind, LargeBinary):
        return b"\x00\xff, %d" % number
    assert isinstance(kind, String), kind
    return f"é{number}"[: kind.length]


async def fill(transaction: Transaction) -> None:
    """Rows in every table there is, whatever is in them; more than one batch takes, and values left out where they
    may be."""
    for table in TABLES:
        if table.name == "delivery_counts":  # triggers do
            continue
        rows = [
            {
                column.name: None if column.nullable and number % 3 == 0 else _value(table, column.name, number)
                for column in table.c
            }
            for number in range(25)
        ]
        if table is deliveries:
            for row in rows:
                row["status"] = "pending"
        if table.name in {"log", "cursors"}:
            continue  # migrations did
        raw = {column.name: _raw(column) for column in table.c}
        statement = insert(table).values({name: text(f":{name}").bindparams() for name in raw})
        await transaction.connection.execute(text(str(statement.compile())), rows)


@pytest.fixture
async def source(url: str, clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> str:
    """With rows in every table, a log that has moved on, and small batches to come."""
    monkeypatch.setattr(moving, "ROWS_AT_ONCE", 7)
    async with database_of(url, clock=clock) as database:
        await database.write(fill)

        async def move_on(transaction: Transaction) -> None:
            for statement in (
                "UPDATE log SET head = 1000000000025, earliest = 1000000000001, last_accepted_at = 7",
                "UPDATE cursors SET cursor = 1000000000020, ahead = 1000000000021, behind = x'7b7d'",
                "UPDATE deliveries SET status = 'dead' WHERE id > 'é20'",
                "DELETE FROM deliveries WHERE id = 'é3'",
            ):
                await transaction.connection.execute(text(statement))

        await database.write(move_on)
    return url


async def test_everything_is_copied_whatever_table_it_is_in(source: str, into: str) -> None:
    before = await contents(source)
    assert all(before.values()), "there is something in each"
    quiet = Quiet()
    assert await copy(source, into, quiet)
    assert await contents(into) == before
    assert dict(quiet.rows) == {name: len(rows) for name, rows in before.items()}
    async with database_of(into) as database, database.reading() as connection:
        counted = (await connection.execute(select(deliveries.c.id))).all()
        kept = (await connection.execute(text("SELECT sum(pending + dead) FROM delivery_counts"))).scalar_one()
    assert kept == len(counted), "not counted twice"


@pytest.mark.parametrize("stop_after", [1, 2, 9, 23, 50, 10_000])
async def test_cut_short_anywhere_it_goes_on_and_is_exact(source: str, into: str, stop_after: int) -> None:
    before = await contents(source)
    with pytest.raises(CopyCutShort, match="cut off"):
        await copy(source, into, Quiet(stop_after=stop_after))
    again = Quiet()
    assert await copy(source, into, again)
    assert sum(again.there.values()) > 0 or stop_after == 1, "it went on where it was"
    assert await contents(into) == before


async def test_killed_in_the_middle_it_goes_on_and_is_exact(source: str, into: str) -> None:
    before = await contents(source)
    async with database_of(into):
        pass  # its tables are there
    blocker = await asyncpg.connect(into)

    async def has_events() -> bool:
        progress: bytes | None = await blocker.fetchval("SELECT progress FROM moves")
        return b'"events":{"rows":25' in (progress or b"")

    blocking = blocker.transaction()
    await blocking.start()
    await blocker.execute("LOCK TABLE deliveries IN SHARE MODE")
    with subprocess.Popen(  # noqa: ASYNC220 - it is waited for at its end, when it has been killed
        [COMMAND, "copy", source, into], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as child:
        await eventually_answered(has_events, "events are there, and deliveries wait")
        child.kill()
        assert child.wait(10) == -signal.SIGKILL
    await blocking.rollback()
    await blocker.close()
    for url in (source, into):
        with pytest.raises(StorageUnavailable, match="run `gateway copy` again"):
            await database_of(url).__aenter__()
    done = await asyncio.to_thread(
        subprocess.run, [COMMAND, "copy", source, into], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "of them are there already" in done.stdout
    assert await contents(into) == before


async def test_numbers_that_the_database_gives_out_go_on_after_those_that_were_copied(source: str, into: str) -> None:
    await copy(source, into, Quiet())

    async def work(transaction: Transaction) -> None:
        await transaction.connection.execute(insert(tallies), {"figures": b""})

    async with database_of(into) as database:
        await database.write(work)
        async with database.reading() as connection:
            ids = (await connection.execute(select(tallies.c.id).order_by(tallies.c.id))).scalars().all()
    assert ids[-1] == 10**12 + 25


async def test_sealed_stays_sealed_and_the_target_is_a_gateways_with_the_same_key(
    url: str, into: str, clock: HandClock
) -> None:
    seal = Seal(["a passphrase of some length"])
    async with database_of(url, clock=clock, seal=seal) as database:
        stores = Stores.over(database, clock)
        subscription = await stores.subscribe(headers={"authorization": "Bearer swordfish"})
        signing = await stores.keys.signing_key()
        [owed] = await stores.owed(subscription)
        await stores.fail(owed, due_at=NOON)
        position = await stores.log.position()
        place = await stores.fanout.place()
        before = await stores.log.read(Cursor(0))
    await copy(url, into, Quiet())
    with pytest.raises(StorageUnavailable, match="GATEWAY_SECRET_KEY"):
        await database_of(into).__aenter__()
    async with database_of(into, clock=clock, seal=seal) as database:
        stores = Stores.over(database, clock)
        assert await stores.log.position() == position, "the epoch goes along: cursors stay good"
        assert await stores.fanout.place() == place
        assert [event.body for event in (await stores.log.read(Cursor(0))).events] == [
            event.body for event in before.events
        ]
        assert await stores.keys.signing_key() == signing
        assert await stores.subscriptions.get(subscription.id) == subscription
        [still] = await stores.due(subscription)
        assert (still.id, still.attempt_count) == (owed.id, 1)
        assert [attempt.number for attempt in await stores.desk.attempts(owed.id)] == [1]
        [event] = await stores.publish(a_draft())
        assert event.cursor == position.head + 1, "the log goes on"


async def test_the_source_says_where_it_has_moved_without_the_password_and_is_not_served_again(
    source: str, into: str
) -> None:
    await copy(source, into.replace("postgres@", "postgres:swordfish@"), Quiet())
    with pytest.raises(StorageUnavailable) as refused:
        await database_of(source).__aenter__()
    assert f"moved to {into.replace('postgres@', 'postgres:***@')}" in refused.value.detail
    assert "swordfish" not in refused.value.detail
    with pytest.raises(MoveRefused, match="may be at work already"):
        await give_up(source)


async def test_what_has_been_copied_is_not_copied_again(source: str, into: str, other: str) -> None:
    await copy(source, into, Quiet())
    async with database_of(into) as database:
        await Stores.over(database, HandClock()).keys.revoke("é1")
    assert not await copy(source, into, Quiet()), "to the same target: nothing to do"
    with pytest.raises(MoveRefused, match="has moved to"):
        await copy(source, other, Quiet())


@pytest.fixture
def other(postgres: PostgresServer) -> str:
    return postgres.create()


@pytest.fixture
async def half(source: str, into: str) -> str:
    """A target with half a copy of *source*."""
    with pytest.raises(CopyCutShort):
        await copy(source, into, Quiet(stop_after=12))
    return into


async def test_of_two_targets_only_the_last_can_become_whole(source: str, half: str, other: str) -> None:
    assert await copy(source, other, Quiet())
    with pytest.raises(MoveRefused, match="another or one that was given up"):
        await copy(source, half, Quiet())


async def test_given_up_the_source_is_served_again_and_the_half_copy_is_of_no_use(source: str, half: str) -> None:
    await give_up(source)
    async with database_of(source):
        pass
    with pytest.raises(MoveRefused, match="another or one that was given up"):
        await copy(source, half, Quiet())
    with pytest.raises(MoveRefused, match="No copy"):
        await give_up(source)


async def test_a_wrong_target_in_between_does_not_spoil_a_copy_that_was_begun(
    source: str, half: str, other: str
) -> None:
    async with database_of(other) as database:
        await Stores.over(database, HandClock()).log.append([[a_draft()]])
    with pytest.raises(MoveRefused, match="copy into a new database"):
        await copy(source, other, Quiet())
    assert await copy(source, half, Quiet())


@pytest.mark.parametrize("what", ["an event", "a key"])
async def test_a_target_that_is_not_empty_is_refused_and_the_source_stays_in_use(
    source: str, into: str, what: str, clock: HandClock
) -> None:
    async with database_of(into, clock=clock) as database:
        stores = Stores.over(database, clock)
        await (stores.publish() if what == "an event" else stores.keys.signing_key())
    with pytest.raises(MoveRefused, match="cannot take a copy: there is something in its table"):
        await copy(source, into, Quiet())
    async with database_of(source):
        pass


async def test_a_target_that_is_refused_is_left_as_it_is_of_an_older_version_too(source: str, other: str) -> None:
    def older(connection: Connection) -> None:
        migrations.upgrade(connection, to="0006")
        connection.execute(text("INSERT INTO vault (name, value) VALUES ('signing', '')"))

    async with as_alchemy(other).begin() as connection:
        await connection.run_sync(older)
    with pytest.raises(MoveRefused, match="there is something in its table vault"):
        await copy(source, other, Quiet())
    found = await asyncpg.connect(other)
    assert await found.fetchval("SELECT version_num FROM alembic_version") == "0006"
    await found.close()


async def test_a_source_that_is_served_is_refused(source: str, into: str) -> None:
    async with database_of(source):
        with pytest.raises(DatabaseInUse):
            await copy(source, into, Quiet())


async def test_a_target_that_is_served_is_refused_however_empty(
    source: str, into: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.storage.engines.postgres.sessions.CLOSING_SECONDS", 0.3)
    async with database_of(into) as database:
        async with database.reading():
            pass
        with pytest.raises(MoveRefused, match="a gateway is at work on it"):
            await copy(source, into, Quiet())


async def test_a_copy_that_is_not_the_same_is_never_whole(source: str, into: str, postgres: PostgresServer) -> None:
    with pytest.raises(CopyCutShort):
        await copy(source, into, Quiet(stop_after=10_000))
    await asyncio.to_thread(postgres.execute, "DELETE FROM events WHERE id = 'é7'", on=into)
    with pytest.raises(MoveRefused, match="events 25 here and 24 there"):
        await copy(source, into, Quiet())
    with pytest.raises(StorageUnavailable, match="half a copy"):
        await database_of(into).__aenter__()


_SPOIL = "UPDATE keys SET id = {} WHERE id = 'é7'"


@pytest.mark.parametrize("value", ["'half\ufffe' || char(0)", "'" + "x" * 65 + "'"])
async def test_a_row_that_postgres_does_not_take_is_named_by_its_table(source: str, into: str, value: str) -> None:
    async def spoil(transaction: Transaction) -> None:
        await transaction.connection.execute(text(_SPOIL.format(value)))

    async with database_of(source) as database:
        await database.write(spoil)
    with pytest.raises(MoveRefused, match="does not take a row of keys"):
        await copy(source, into, Quiet())


@pytest.mark.parametrize(
    ("source", "into", "words"),
    [
        ("postgresql://localhost/a", "postgresql://localhost/b", "Only SQLite"),
        ("sqlite:///nowhere.db", "postgresql://localhost/b", "There is no database"),
        ("sqlite://", "postgresql://localhost/b", "The source"),
        ("{path}", "sqlite:///other.db", "PostgreSQL only"),
        ("{path}", "postgresql://", "The target"),
    ],
)
async def test_other_directions_are_refused(path: Path, source: str, into: str, words: str) -> None:
    with pytest.raises(MoveRefused, match=words):
        await copy(source.format(path=f"sqlite:///{path}"), into, Quiet())


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:s3/cr@et@host/db", "postgresql://me:s3/cr@et@host/db"),  # not a URL: the / ends its place
        ("postgresql://me:s3cr@et@host/db", "postgresql://me:***@host/db"),
        (
            "postgresql://me@host/db?password=s3cret&sslmode=require",
            "postgresql://me@host/db?password=***&sslmode=require",
        ),
        ("sqlite:////var/lib/gateway.db", "sqlite:////var/lib/gateway.db"),
    ],
)
def test_a_place_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown
