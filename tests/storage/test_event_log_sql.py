"""The log in SQL keeps what every log promises."""

import pytest

from gateway.events import Cursor, Page
from gateway.filters import Filter
from gateway.ports.log import HistoryQuery
from gateway.storage.database import Database
from gateway.storage.log import SqlEventLog
from tests.builders import HandClock, a_draft
from tests.contracts.event_log import EventLogContract, LogUnderTest
from tests.storage.arrange import Stores, drop_events


class TestSqlEventLog(EventLogContract):
    @pytest.fixture
    def subject(self, database: Database, clock: HandClock) -> LogUnderTest:
        announced: list[Page] = []
        database.on_commit(announced.append)

        async def drop(until: Cursor) -> None:
            await drop_events(database, until)

        return LogUnderTest(log=SqlEventLog(database), clock=clock, announced=announced, drop=drop)


async def test_a_confined_readers_page_is_full_though_its_neighbours_fill_the_log(stores: Stores) -> None:
    await stores.publish(*(a_draft(library_id="films") for _ in range(3)))
    await stores.publish(*(a_draft() for _ in range(200)))
    page = await stores.log.history(HistoryQuery(filter=Filter(), libraries=frozenset({"films"}), limit=3))
    assert [event.cursor for event in page.rows] == [3, 2, 1]
