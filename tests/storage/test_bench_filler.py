"""What `gateway bench` fills is what a gateway would have made, on both engines; and its databases are its own."""

from datetime import UTC, datetime

import asyncpg
import pytest

from gateway.bench.errors import BenchError
from gateway.bench.marks import marks_in
from gateway.bench.roles import filler
from gateway.bench.servers import new_database
from gateway.events import Cursor
from gateway.ports.fanout import FanoutPlace
from gateway.storage.engines import database_of
from tests.builders import HandClock
from tests.servers.postgres import PostgresServer
from tests.storage.arrange import Stores


async def test_a_log_is_as_long_as_was_asked_for(url: str, clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filler, "EVENTS_AT_ONCE", 40)
    await filler.lengthen(url=url, library="long", events=100, size=50)
    async with database_of(url, clock=clock) as database:
        stores = Stores.over(database, clock)
        page, place = await stores.log.read(Cursor(0), limit=1000), await stores.fanout.place()
    assert len({event.id for event in page.events}) == page.last == place.cursor == 100


async def test_each_event_is_owed_to_each_subscription_and_the_fan_out_has_nothing_left(
    url: str, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filler, "DELIVERIES_AT_ONCE", 6)
    receivers = [f"http://127.0.0.1:9/{place}" for place in range(3)]
    ids = (await filler.subscribe(url=url, library="books", receivers=receivers, in_flight=4))["ids"]
    await filler.owe(url=url, library="books", ids=ids, events=5, size=200)
    assert (await filler.books(url=url, ids=ids))["books"] == [[0, 0, 5]] * 3
    async with database_of(url, clock=clock) as database:
        stores = Stores.over(database, clock)
        owed = {id_: (await stores.deliveries.due(id_, now=datetime.now(UTC), limit=100)).deliveries for id_ in ids}
        place, head = await stores.fanout.place(), (await stores.log.position()).head
        endpoints = [await stores.deliveries.endpoint(id_) for id_ in ids]
    for deliveries in owed.values():
        assert [marks_in(delivery.body)[0][0] for delivery in deliveries] == [0, 1, 2, 3, 4]
    assert place == FanoutPlace(cursor=head)
    assert [found[0].url for found in endpoints if found] == receivers


async def test_a_database_on_a_server_is_new_and_gone_afterwards(postgres: PostgresServer) -> None:
    async with new_database(f"{postgres.url('postgres')}?application_name=bench") as url:
        connection = await asyncpg.connect(url)  # still connected when it is dropped
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(url)


async def test_a_server_that_is_not_there_is_said() -> None:
    with pytest.raises(BenchError, match="no database can be made at --server"):
        async with new_database("postgresql://postgres@127.0.0.1:9/postgres"):
            pass
