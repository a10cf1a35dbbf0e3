"""The bus of a process: one object, whatever it runs on and wherever it is called from."""

import asyncio
import sys
import threading
from subprocess import run

import pytest

from gateway import Event, EventBus, EventType, get_event_bus
from gateway.errors import Conflict, InvalidInput
from gateway.inprocess.eventbus import OPENERS, Engine, install, memory_engine


class Seen:
    def __init__(self) -> None:
        self.types: list[str] = []

    async def __call__(self, event: Event) -> None:
        self.types.append(event.type.value)


def an_event(type_: str = "custom", *, id_: str | None = None, **data: object) -> Event:
    return Event(type=type_, library_id="books", data=data, id=id_)


def test_importing_the_bus_loads_no_web_server_and_no_database() -> None:
    heavy = "{'litestar', 'uvicorn', 'sqlalchemy', 'aiohttp', 'pydantic'}"
    code = f"import gateway, sys; print(sorted({heavy} & set(sys.modules)))"
    assert run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


async def test_a_bus_starts_when_it_is_first_used() -> None:
    bus = EventBus()
    assert (bus._running, bus._loop, bus._worker_task) == (False, None, None)
    assert bus.get_statistics()["total_published"] == 0
    with pytest.raises(RuntimeError, match="has not started"):
        bus.publish_threadsafe(an_event())
    await bus.publish(an_event())
    assert bus._running
    assert bus._loop is asyncio.get_running_loop()
    assert bus._worker_task is not None
    assert not bus._worker_task.done()
    assert bus.get_statistics()["total_published"] == 1


async def test_many_first_uses_at_once_start_one_bus() -> None:
    bus, seen = EventBus(), Seen()
    await asyncio.gather(bus.subscribe(seen), *(bus.publish(an_event(id_=f"i{number}")) for number in range(50)))
    receipts = await asyncio.gather(*(bus.publish(an_event(id_=f"i{number}")) for number in range(50)))
    assert sorted(receipt.cursor for receipt in receipts) == list(range(1, 51))
    assert all(receipt.duplicate for receipt in receipts)


async def test_a_receipt_says_where_the_event_is() -> None:
    async with EventBus.open("memory://") as bus:
        first = await bus.publish(an_event(id_="a", n=1))
        assert (first.id, first.cursor, first.duplicate) == ("a", 1, False)
        assert (await bus.publish(an_event(id_="a", n=1.0))).duplicate
        with pytest.raises(Conflict, match="the id a is known"):
            await bus.publish(an_event(id_="a", n=2))
        with pytest.raises(InvalidInput, match="/type"):
            await bus.publish(an_event("gateway.ping"))


async def test_a_subscription_chooses_in_the_words_of_a_filter() -> None:
    async with EventBus.open("memory://") as bus:
        one, several, both, branch, library, word = (Seen() for _ in range(6))
        await bus.subscribe(one, EventType.DOCUMENT_ADDED)
        await bus.subscribe(several, event_types=(EventType.DOCUMENT_ADDED, "custom"))
        await bus.subscribe(both, event_type="custom", event_types=["search.performed"])
        await bus.subscribe(branch, event_type="document.*")
        await bus.subscribe(library, library_id="films")
        await bus.subscribe(word, filter="event.data.n == 1")
        await bus.publish(an_event("document.added"))
        await bus.publish(an_event("custom", n=1))
        await bus.publish(Event(type="search.performed", library_id="films"))
        assert await bus.caught_up()
        assert one.types == branch.types == ["document.added"]
        assert several.types == ["document.added", "custom"]
        assert both.types == ["custom", "search.performed"]
        assert library.types == ["search.performed"]
        assert word.types == ["custom"]


async def test_a_subscription_that_makes_no_sense_is_refused() -> None:
    async with EventBus.open("memory://") as bus:
        with pytest.raises(InvalidInput) as raised:
            await bus.subscribe(Seen(), event_types=["A", "custom"], library_id="a/b", filter="1 +")
        assert [fault.pointer for fault in raised.value.faults] == ["/library_ids/0", "/types/0", "/filter"]
        with pytest.raises(InvalidInput):
            await bus.subscribe(Seen(), event_types=[])
        assert bus.get_statistics()["active_subscribers"] == 0


async def test_who_unsubscribed_twice_is_told() -> None:
    async with EventBus.open("memory://") as bus:
        handler_id = await bus.subscribe(Seen())
        assert await bus.unsubscribe(handler_id)
        assert not await bus.unsubscribe(handler_id)


async def test_at_the_end_of_an_open_bus_what_was_published_has_been_handled() -> None:
    seen = Seen()

    async def slow(event: Event) -> None:
        for _ in range(20):
            await asyncio.sleep(0)  # lets the others go first
        await seen(event)

    async with EventBus.open("memory://") as bus:
        await bus.subscribe(slow)
        for _ in range(100):
            await bus.publish(an_event())
        assert len(seen.types) < 100
    assert len(seen.types) == 100
    assert not bus._running


@pytest.mark.parametrize("url", ["", "nonsense", "memory://name", "ftp://x", "mysql://x/y"])
async def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="cannot open"):
        async with EventBus.open(url):
            pass


def test_every_opener_that_is_named_is_spelt_as_one() -> None:
    assert all(place.count(":") == 1 and place.startswith("gateway.") for place in OPENERS.values())


async def test_publishing_from_other_threads_and_other_loops() -> None:
    async with EventBus.open("memory://") as bus:
        seen = Seen()
        await bus.subscribe(seen)

        def with_a_future() -> int:
            return bus.publish_threadsafe(an_event("a")).result(timeout=5).cursor

        def with_a_loop() -> int:
            return asyncio.run(bus.publish(an_event("b"))).cursor

        assert await asyncio.to_thread(with_a_future) == 1
        assert await asyncio.to_thread(with_a_loop) == 2
        assert await bus.caught_up()
        assert seen.types == ["a", "b"]


async def test_many_threads_publish_at_once() -> None:
    async with EventBus.open("memory://") as bus:
        await bus.subscribe(seen := Seen())

        def publish() -> None:
            for future in [bus.publish_threadsafe(an_event()) for _ in range(50)]:
                future.result(timeout=5)

        threads = [threading.Thread(target=publish) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        assert await bus.caught_up()
        assert len(seen.types) == bus.get_statistics()["total_published"] == 200


async def test_a_fault_reaches_the_thread_that_published() -> None:
    async with EventBus.open("memory://") as bus:
        with pytest.raises(InvalidInput, match="/type"):
            await asyncio.to_thread(lambda: bus.publish_threadsafe(an_event("A")).result(timeout=5))


# --- engines come and go ---------------------------------------------------------------------------------------------


async def test_who_subscribed_before_the_server_started_hears_the_server() -> None:
    bus, seen = EventBus(), Seen()
    await bus.subscribe(seen)
    await bus.publish(an_event("before"))
    assert await bus.caught_up()
    own = bus._worker_task
    async with memory_engine() as engine:
        detach = bus.attach(engine)
        await bus.publish(an_event("meanwhile"))
        assert await bus.caught_up()
        assert engine.counters.figures()["total_published"] == 1
        assert engine.counters.figures()["active_subscribers"] == 1
        detach()
    assert own is not None
    await asyncio.wait([own], timeout=5)
    assert own.cancelled()
    assert not bus._running
    await bus.publish(an_event("after"))
    assert await bus.caught_up()
    assert seen.types == ["before", "meanwhile", "after"]


async def test_detaching_an_engine_that_was_replaced_changes_nothing() -> None:
    bus = EventBus()
    async with memory_engine() as first, memory_engine() as second:
        detach_first = bus.attach(first)
        bus.attach(second)
        detach_first()
        assert bus._engine is second


async def test_the_bus_of_the_process_runs_on_what_is_installed() -> None:
    bus, seen = get_event_bus(), Seen()
    assert get_event_bus() is bus
    async with memory_engine() as engine:
        uninstall = install(engine)
        handler_id = await bus.subscribe(seen)
        await bus.publish(an_event())
        assert await bus.caught_up()
        assert bus.get_statistics() == {**engine.counters.figures(), "uptime_seconds": pytest.approx(0, abs=60)}
        assert await bus.unsubscribe(handler_id)
        uninstall()
    assert seen.types == ["custom"]


def test_a_bus_whose_loop_has_ended_starts_again_in_the_next() -> None:
    bus, seen = EventBus(), Seen()

    async def first() -> None:
        await bus.subscribe(seen)
        await bus.publish(an_event("first"))
        assert await bus.caught_up()

    async def second() -> None:
        assert not bus._running
        await bus.publish(an_event("second"))
        assert await bus.caught_up()

    asyncio.run(first())
    assert bus.get_statistics()["total_published"] == 1
    with pytest.raises(RuntimeError, match="has not started"):
        bus.publish_threadsafe(an_event())
    asyncio.run(second())
    assert seen.types == ["first", "second"]


def test_a_server_may_start_after_the_loop_of_the_bus_in_memory_has_ended() -> None:
    bus, seen = EventBus(), Seen()

    async def serve() -> None:
        async with memory_engine() as engine:
            detach = bus.attach(engine)
            await bus.publish(an_event())
            assert await bus.caught_up()
            detach()

    asyncio.run(run_once(bus, seen))
    asyncio.run(serve())
    assert seen.types == ["custom"]


async def run_once(bus: EventBus, seen: Seen) -> None:
    await bus.subscribe(seen)


async def test_an_engine_says_what_runs_it() -> None:
    async with memory_engine() as engine:
        assert isinstance(engine, Engine)
        assert engine.worker is asyncio.current_task()
