"""Attempts by the day, on PostgreSQL: days are made ahead and leave whole."""

from datetime import date, datetime, timedelta

import asyncpg
import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, text

from gateway.storage import migrations
from gateway.storage.database import Database, Transaction
from gateway.storage.engines import database_of
from gateway.storage.engines.postgres.days import row_by_row_until
from gateway.storage.engines.postgres.server import as_alchemy
from gateway.storage.retention import SqlRetentionStore
from tests.builders import NOON, HandClock
from tests.servers.postgres import PostgresServer
from tests.storage.arrange import Stores, a_settlement, an_attempt
from webhooks.verdicts import Retry

DAY = timedelta(days=1)
MONTH = timedelta(days=30)
TODAY, TOMORROW, DEFAULT = "attempts_20251027", "attempts_20251028", "attempts_default"


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    """Of a database of its own: partitions come and go."""
    return postgres.create()


@pytest.fixture
def retention(database: Database) -> SqlRetentionStore:
    return SqlRetentionStore(database)


_PARTITIONS = text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'attempts'::regclass ORDER BY 1")


async def partitions(database: Database) -> dict[str, int]:
    """How many attempts are in each."""
    async with database.reading() as connection:
        names = (await connection.execute(_PARTITIONS)).scalars()
        counts = {}
        for name in names:
            counts[name] = (await connection.execute(text(f"SELECT count(*) FROM {name}"))).scalar_one()  # noqa: S608 - the catalogue's own
    return counts


async def attempt(stores: Stores, *moments: datetime) -> None:
    """One of one delivery at each of *moments*."""
    subscription = await stores.subscribe()
    for delivery, moment in zip(await stores.owed(subscription, events=len(moments)), moments, strict=True):
        made = replace(an_attempt(status_code=503), started_at=moment)
        await stores.deliveries.settle([a_settlement(delivery, Retry(NOON), attempt=made)])


async def test_today_and_tomorrow_are_there_from_the_start(stores: Stores) -> None:
    assert await partitions(stores.database) == {TODAY: 0, TOMORROW: 0, DEFAULT: 0}
    await attempt(stores, NOON, NOON + DAY, NOON - DAY)
    assert await partitions(stores.database) == {TODAY: 1, TOMORROW: 1, DEFAULT: 1}


async def test_retention_makes_the_days_to_come_and_takes_over_what_came_too_early(
    stores: Stores, retention: SqlRetentionStore
) -> None:
    await attempt(stores, NOON + 2 * DAY)
    assert (await partitions(stores.database))[DEFAULT] == 1
    stores.clock.advance(seconds=DAY.total_seconds())
    await retention.drop_attempts(before=stores.clock() - MONTH, limit=500)
    assert await partitions(stores.database) == {TODAY: 0, TOMORROW: 0, "attempts_20251029": 1, DEFAULT: 0}


async def test_days_leave_whole_once_they_are_over_for_long_enough(
    stores: Stores, retention: SqlRetentionStore
) -> None:
    await attempt(stores, NOON, NOON + timedelta(hours=11), NOON - 2 * DAY)
    stores.clock.advance(seconds=MONTH.total_seconds())
    assert await retention.drop_attempts(before=stores.clock() - MONTH, limit=500) == 1, "of the net, row by row"
    assert (await partitions(stores.database))[TODAY] == 2, "its day is not over"
    assert (await partitions(stores.database))[DEFAULT] == 0
    stores.clock.advance(seconds=DAY.total_seconds() / 2)
    assert await retention.drop_attempts(before=stores.clock() - MONTH, limit=500) == 0
    assert list(await partitions(stores.database)) == [
        TOMORROW,
        *("attempts_20251126", "attempts_20251127", "attempts_20251128"),
        DEFAULT,
    ]


async def test_where_a_day_is_long_for_what_is_kept_attempts_leave_by_themselves(
    stores: Stores, retention: SqlRetentionStore
) -> None:
    await attempt(stores, NOON, NOON + timedelta(minutes=2))
    stores.clock.advance(seconds=61)
    before = stores.clock() - timedelta(minutes=1)
    assert await retention.drop_attempts(before=before, limit=500) == 1
    assert (await partitions(stores.database))[TODAY] == 1


@pytest.mark.parametrize(
    ("kept", "until"),
    [
        (timedelta(seconds=60), NOON),
        (9 * DAY, NOON),
        (10 * DAY, datetime(2025, 10, 27, tzinfo=NOON.tzinfo)),
        (MONTH, datetime(2025, 10, 27, tzinfo=NOON.tzinfo)),
    ],
)
def test_nothing_stays_longer_than_it_should_by_more_than_a_tenth(kept: timedelta, until: datetime) -> None:
    assert row_by_row_until(NOON, NOON + kept) == until
    assert NOON - until <= kept / 10


async def test_what_others_are_in_the_way_of_is_done_later(
    stores: Stores, retention: SqlRetentionStore, url: str
) -> None:
    await attempt(stores, NOON, NOON)
    stores.clock.advance(seconds=(MONTH + DAY).total_seconds())
    reader = await asyncpg.connect(url)
    async with reader.transaction():
        await reader.fetch("SELECT * FROM attempts")
        assert await retention.drop_attempts(before=stores.clock() - MONTH, limit=1) == 1, "meanwhile row by row"
        assert (await partitions(stores.database))[TODAY] == 1
    await reader.close()
    await retention.drop_attempts(before=stores.clock() - MONTH, limit=500)
    assert TODAY not in await partitions(stores.database)


async def test_the_same_attempt_again_at_another_time_is_stored_once(stores: Stores) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    for moment in (NOON, NOON + DAY):
        made = replace(an_attempt(status_code=503), started_at=moment)
        await stores.deliveries.settle([a_settlement(delivery, Retry(NOON), attempt=made)])
    assert [one.started_at for one in await stores.desk.attempts(delivery.id)] == [NOON]


async def test_attempts_from_before_there_were_days_stay_and_leave_row_by_row(url: str) -> None:
    def older(connection: Connection) -> None:
        migrations.upgrade(connection, to="0008")
        for days, key in ((0, "dlv_a"), (20, "dlv_b")):
            moment = int((NOON - days * DAY).timestamp() * 1_000_000)
            connection.exec_driver_sql(_ATTEMPT.format(key=key, moment=moment))

    async with as_alchemy(url).begin() as connection:
        await connection.run_sync(older)
    clock = HandClock()
    async with database_of(url, clock=clock) as database:
        stores, retention = Stores.over(database, clock), SqlRetentionStore(database)
        assert await partitions(database) == {"attempts_before": 2, TOMORROW: 0, DEFAULT: 0}
        assert [one.started_at for one in await stores.desk.attempts("dlv_a")] == [NOON]
        await attempt(stores, NOON, NOON + DAY)
        assert await partitions(database) == {"attempts_before": 3, TOMORROW: 1, DEFAULT: 0}
        clock.advance(seconds=(15 * DAY).total_seconds())
        assert await retention.drop_attempts(before=clock() - MONTH, limit=500) == 1
        assert (await partitions(database))["attempts_before"] == 2
        clock.advance(seconds=(16 * DAY).total_seconds())
        await retention.drop_attempts(before=clock() - MONTH, limit=500)
        assert "attempts_before" not in await partitions(database)
        assert [one.started_at for one in await stores.desk.attempts("dlv_a")] == []


_ATTEMPT = """
    INSERT INTO attempts (delivery_id, number, started_at, duration, request_headers, response_headers, response_body)
    VALUES ('{key}', 1, {moment}, 0, '{{}}', '{{}}', '')
"""


async def test_days_are_made_once_whoever_makes_them(database: Database) -> None:
    days = [date(2025, 10, 26), date(2025, 10, 27), date(2025, 12, 31)]
    for _ in range(2):
        await database.make_days(days)
    assert list(await partitions(database)) == ["attempts_20251026", TODAY, TOMORROW, "attempts_20251231", DEFAULT]


async def test_what_is_of_one_delivery_is_found_by_its_index_in_every_partition(database: Database) -> None:
    async def plan(transaction: Transaction) -> list[str]:
        connection = transaction.connection
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        found = await connection.execute(text("EXPLAIN SELECT * FROM attempts WHERE delivery_id = 'dlv_a'"))
        return list(found.scalars())

    await database.make_days(date(2025, 10, 1) + number * DAY for number in range(31))
    steps = await database.write(plan)
    assert sum("_pkey" in step for step in steps) == 32, "\n".join(steps)
    assert not any("Seq Scan" in step for step in steps)
