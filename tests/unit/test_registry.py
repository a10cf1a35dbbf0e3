"""Publishers are held to schemas: by whom, from when on, and what it says to whom."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
import structlog

from gateway.errors import InvalidInput
from gateway.event_types import BUILT_IN, EventTypeRecord, Validation
from gateway.events import Cursor, Draft, Event
from gateway.inprocess.eventbus import EventBus, memory_engine
from gateway.ports.log import Misfit, Published, Receipt
from gateway.registry.registry import CheckedPublisher, Registry
from gateway.statistics import CountedPublisher, Counters
from tests.builders import a_draft, a_page, an_event

SCHEMA = {"required": ["n"], "properties": {"n": {"type": "integer"}}}
FITS, MISFITS = b'{"n":1}', b'{"n":"x"}'


def a_record(validation: Validation = Validation.ENFORCE, **fields: Any) -> EventTypeRecord:
    defaults: dict[str, Any] = {"type": "order.paid", "schema": SCHEMA, "cursor": Cursor(1)}
    return EventTypeRecord(validation=validation, **defaults | fields)


def a_notice(record: EventTypeRecord, *, cursor: int) -> Any:
    data = {
        "type": record.type,
        "description": record.description,
        "schema": record.schema,
        "validation": record.validation,
    }
    event = an_event(
        cursor=cursor, type="gateway.event_type.updated", library_id="gateway", data=msgspec.json.encode(data)
    )
    return a_page([event])


class Taking:
    """A publisher that takes everything."""

    queue_size = 3

    def __init__(self) -> None:
        self.taken: list[str] = []

    async def publish(self, drafts: Any) -> Published:
        self.taken += [draft.id for draft in drafts]
        return tuple(Receipt(draft.id, Cursor(1), duplicate=False) for draft in drafts)


class Stored:
    def __init__(self, *records: EventTypeRecord) -> None:
        self.records = records

    async def active(self) -> tuple[EventTypeRecord, ...]:
        return self.records


def paid(data: bytes, id: str | None = None) -> Draft:  # noqa: A002 - the field is named so
    return a_draft(id=id, type="order.paid", data=data)


async def test_data_that_does_not_fit_is_refused_with_all_that_came_with_it() -> None:
    registry, publisher = Registry(), Taking()
    registry.apply(a_record())
    answer = await CheckedPublisher(publisher, registry).publish([paid(FITS), paid(MISFITS), a_draft(), paid(b"{}")])
    assert isinstance(answer, Misfit)
    assert [(index, fault.pointer, fault.detail) for index, fault in answer.faults] == [
        (1, "/data/n", 'is not of type "integer"'),
        (3, "/data", '"n" is a required property'),
    ]
    assert publisher.taken == []
    assert registry.share().extras == {"schema_warnings": 0, "schema_refusals": 2}


async def test_what_fits_and_what_nobody_checks_is_published() -> None:
    registry, publisher = Registry(), Taking()
    checked = CheckedPublisher(publisher, registry)
    registry.apply(a_record(Validation.OFF))
    await checked.publish([paid(MISFITS, id="a")])
    registry.apply(a_record())
    await checked.publish([paid(FITS, id="b"), a_draft(id="c", type="order.refunded", data=MISFITS)])
    assert publisher.taken == ["a", "b", "c"]
    assert checked.queue_size == 3


async def test_of_a_warning_it_is_counted_each_time_and_logged_now_and_then() -> None:
    seconds = [0.0]
    registry, publisher = Registry(monotonic=lambda: seconds[0]), Taking()
    registry.apply(a_record(Validation.WARN))
    registry.apply(a_record(Validation.WARN, type="order.sent"))
    checked = CheckedPublisher(publisher, registry)
    with structlog.testing.capture_logs() as logs:
        for at in (0.0, 59.0, 60.0, 61.0):
            seconds[0] = at
            await checked.publish([paid(MISFITS), paid(FITS)])
        await checked.publish([a_draft(type="order.sent", data=MISFITS)])
    assert len(publisher.taken) == 9
    assert registry.share().extras == {"schema_warnings": 5, "schema_refusals": 0}
    assert [(each["type"], each["place"]) for each in logs] == [
        ("order.paid", "/data/n"),
        ("order.paid", "/data/n"),
        ("order.sent", "/data/n"),
    ]


async def test_a_batch_with_many_faults_is_told_the_first_hundred() -> None:
    registry = Registry()
    registry.apply(a_record(schema={"required": ["a", "b", "c"]}))
    answer = await registry.check([paid(b"{}") for _ in range(300)])
    assert answer is not None
    assert [index for index, _ in answer.faults] == [number // 3 for number in range(100)]


# --- from when on ----------------------------------------------------------------------------------------------------


async def refuses(registry: Registry) -> bool:
    return await registry.check([paid(MISFITS)]) is not None


async def test_what_is_stored_is_checked_from_the_start() -> None:
    registry = Registry()
    await registry.load(Stored(a_record()))
    assert await refuses(registry)


async def test_changes_made_elsewhere_take_effect_when_the_log_says_so() -> None:
    registry = Registry()
    registry.feed(a_notice(a_record(), cursor=4))
    assert await refuses(registry)
    registry.feed(a_page([an_event(cursor=5)]))
    assert await refuses(registry)
    registry.feed(a_notice(a_record(Validation.OFF), cursor=6))
    assert not await refuses(registry)


async def test_a_change_that_is_heard_of_late_does_not_undo_a_later_one() -> None:
    registry = Registry()
    registry.apply(a_record(cursor=Cursor(9)))
    registry.feed(a_notice(a_record(Validation.OFF), cursor=8))
    assert await refuses(registry)
    registry.feed(a_notice(a_record(), cursor=9))
    assert await refuses(registry)


async def test_a_stored_schema_that_is_none_any_more_is_told_of_and_holds_up_nobody() -> None:
    registry = Registry()
    with structlog.testing.capture_logs() as logs:
        await registry.load(Stored(a_record(schema={"type": "objekt"}), a_record(type="order.sent")))
    assert [each["event"] for each in logs] == ["event_type.not_checked"]
    assert not await refuses(registry)
    assert await registry.check([a_draft(type="order.sent", data=MISFITS)]) is not None


# --- in process ------------------------------------------------------------------------------------------------------


async def test_a_program_that_publishes_is_held_to_it_too() -> None:
    registry = Registry()
    registry.apply(a_record())
    async with memory_engine() as engine:
        counters = Counters()
        bus = EventBus()
        publisher = CountedPublisher(CheckedPublisher(engine.publisher, registry), counters)
        detach = bus.attach(replace(engine, publisher=publisher))
        with pytest.raises(InvalidInput) as refused:
            await bus.publish(Event(type="order.paid", library_id="a", data={"n": "x"}))
        assert [fault.pointer for fault in refused.value.faults] == ["/data/n"]
        await bus.publish(Event(type="order.paid", library_id="a", data={"n": 1}))
        assert counters.figures()["total_published"] == 1
        detach()


def test_what_is_built_in_checks_nothing_until_somebody_says_so() -> None:
    assert {record.validation for record in BUILT_IN.values()} == {Validation.OFF}
