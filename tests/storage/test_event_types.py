"""Event types in SQL."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.errors import Conflict
from gateway.event_types import BUILT_IN, EventTypeRecord, Validation
from gateway.events import Cursor, Event
from gateway.inprocess.eventbus import EventBus
from gateway.storage.engines import database_of
from gateway.storage.event_types import SqlEventTypeStore
from tests.builders import NOON
from tests.storage.arrange import Stores

BUILT_IN_NAMES = list(BUILT_IN)


@pytest.fixture
def store(stores: Stores) -> SqlEventTypeStore:
    return SqlEventTypeStore(stores.database)


def a_type(name: str, validation: Validation = Validation.OFF, **fields: Any) -> EventTypeRecord:
    return EventTypeRecord(type=name, **{"schema": {"type": "object"}, "validation": validation, **fields})


async def names(store: SqlEventTypeStore, limit: int = 500) -> list[list[str]]:
    """Page by page."""
    pages, before = [], None
    while True:
        page = await store.list(limit=limit, before=before)
        pages.append([record.type for record in page.rows])
        if (before := page.more) is None:
            return pages


async def test_what_is_put_is_listed_as_it_is_and_told_of(stores: Stores, store: SqlEventTypeStore) -> None:
    record = a_type("order.paid", Validation.WARN, description="paid", schema={"required": ["z", "a"]})
    stored = await store.put(record)
    assert stored == replace(record, updated_at=NOON, cursor=Cursor(1))
    assert (await store.list(limit=1, before=None)).rows == (stored,)
    [notice] = await stores.notices()
    assert (notice.type, notice.audience, notice.cursor) == ("gateway.event_type.updated", None, 1)
    assert msgspec.json.decode(notice.data) == {
        "type": "order.paid",
        "description": "paid",
        "schema": {"required": ["z", "a"]},
        "validation": "warn",
    }


async def test_newest_come_first_and_the_built_in_ones_last_page_by_page(store: SqlEventTypeStore) -> None:
    for name in ("c", "a", "document.added", "b"):
        await store.put(a_type(name))
    await store.put(a_type("c", description="changed, not new"))
    everything = ["b", "a", "c", *BUILT_IN_NAMES]
    assert await names(store) == [everything]
    for limit in (1, 2, 3, 4, 7, 8):
        pages = await names(store, limit)
        assert [name for page in pages for name in page] == everything
        assert all(len(page) == limit for page in pages[:-1])
        assert pages[-1] != []


async def test_a_page_is_bounded_in_bytes(stores: Stores) -> None:
    store = SqlEventTypeStore(stores.database, page_bytes=100)
    for name in ("a", "b", "c"):
        await store.put(a_type(name, schema={"title": "x" * 60}))
    assert await names(store) == [["c"], ["b"], ["a", *BUILT_IN_NAMES]]


async def test_one_that_is_built_in_stays_in_its_place_and_is_as_it_was_set(
    stores: Stores, store: SqlEventTypeStore
) -> None:
    stores.clock.advance(seconds=5)
    stored = await store.put(a_type("document.added", Validation.ENFORCE, schema=False))
    rows = (await store.list(limit=500, before=None)).rows
    assert rows == tuple(stored if name == "document.added" else BUILT_IN[name] for name in BUILT_IN)
    assert stored.updated_at == NOON + timedelta(seconds=5)


async def test_those_that_are_checked_are_known_apart(store: SqlEventTypeStore) -> None:
    for name, validation in (("a", Validation.OFF), ("b", Validation.WARN), ("c", Validation.ENFORCE)):
        await store.put(a_type(name, validation))
    await store.put(a_type("c", Validation.OFF))
    assert [record.type for record in await store.active()] == ["b"]


async def test_there_are_only_so_many(stores: Stores) -> None:
    store = SqlEventTypeStore(stores.database, most=2)
    await store.put(a_type("a"))
    await store.put(a_type("document.added"))
    with pytest.raises(Conflict):
        await store.put(a_type("b"))
    await store.put(a_type("a", Validation.WARN))
    assert [record.type for record in await store.active()] == ["a"]


async def test_a_bus_on_a_database_holds_programs_to_what_is_set_there(path: Path) -> None:
    async with database_of(f"sqlite:///{path}") as database:
        record = a_type("order.paid", Validation.ENFORCE, schema={"required": ["n"]})
        await SqlEventTypeStore(database).put(record)
    async with EventBus.open(f"sqlite:///{path}") as bus:
        with pytest.raises(ValueError, match="/data"):
            await bus.publish(Event(type="order.paid", library_id="a"))
        await bus.publish(Event(type="order.paid", library_id="a", data={"n": 1}))
