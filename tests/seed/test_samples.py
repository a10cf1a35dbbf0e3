"""The code that the event bus guide of arrwDB shows runs here as it stands."""

import ast
import asyncio
import re
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from datetime import datetime, timedelta
from inspect import isawaitable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from gateway import Event, EventBus, EventType, get_event_bus

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")  # the samples call it

LIBRARY = UUID("550e8400-e29b-41d4-a716-446655440000")
SAMPLES = dict(
    re.findall(
        r"^## (.+?)\n\n```python\n(.*?)^```$",
        Path(__file__).with_name("samples.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
)


async def run(title: str, **given: Any) -> dict[str, Any]:
    """Run the sample of that title with the names it takes for given; answers its names."""
    code = compile(SAMPLES[title], title, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(code, given)  # noqa: S307 - the sample is the point
    if isawaitable(outcome):
        await outcome
    return given


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    """The bus of the process, as the samples get it, without subscribers."""
    bus = get_event_bus()
    yield bus
    for handler_id in tuple(bus._registrations):
        await bus.unsubscribe(handler_id)


class Calls:
    """Stands for a collaborator of a sample: takes any call, and can be waited for."""

    def __init__(self) -> None:
        self.made: asyncio.Queue[tuple[str, tuple[Any, ...], dict[str, Any]]] = asyncio.Queue()

    def __getattr__(self, name: str) -> Any:
        def note(*args: Any, **kwargs: Any) -> "Nothing":
            self.made.put_nowait((name, args, kwargs))
            return Nothing()

        return note

    async def next(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        async with asyncio.timeout(5):
            return await self.made.get()


class Nothing:
    """May be awaited, or not."""

    def __await__(self) -> Any:
        yield from ()


def an_event(type_: str = EventType.DOCUMENT_ADDED, **data: Any) -> Event:
    return Event(type=EventType(type_), library_id=str(LIBRARY), data=data)


async def test_subscribing_to_everything(bus: EventBus) -> None:
    console = Calls()
    await run("Method 1: Direct Subscription", print=console.print)
    await bus.publish(an_event("library.created"))
    assert (await console.next())[1] == (f"Received event: library.created for library {LIBRARY}",)


async def test_subscribing_to_one_type(bus: EventBus) -> None:
    console = Calls()
    await run("Method 1: Direct Subscription (2)", print=console.print, event_bus=bus, EventType=EventType)
    await bus.publish(an_event("library.created"))
    await bus.publish(an_event(document_id="d1"))
    assert (await console.next())[1] == ("New document added: d1",)


async def test_a_service_with_counters_of_its_own(bus: EventBus) -> None:
    names = await run("Method 3: Custom Service Integration", EventType=EventType)
    service = names["AnalyticsService"](bus)
    await service.start()
    for type_ in ("document.added", "search.performed", "document.added", "custom"):
        await bus.publish(an_event(type_))
    assert await bus.caught_up()
    assert service.stats == {"documents_added": 2, "searches_performed": 1}


async def test_publishing_from_async_code(bus: EventBus) -> None:
    heard = Calls()

    async def handler(event: Event) -> None:
        heard.event(event)

    await bus.subscribe(handler, event_type=EventType.CUSTOM)
    names = await run("Manual Event Publishing", perform_work=lambda: 42)
    await names["custom_operation"](LIBRARY)
    _, (event,), _ = await heard.next()
    assert (event.type, event.library_id) == ("custom", str(LIBRARY))
    assert event.data == {"result": 42, "status": "completed"}
    assert abs(event.timestamp - event.accepted_at) < timedelta(minutes=1)


async def test_publishing_from_synchronous_code_in_another_thread(bus: EventBus) -> None:
    heard = Calls()

    async def handler(event: Event) -> None:
        heard.event(event)

    await bus.subscribe(handler)
    names = await run("Publishing from Sync Code", doc_id=7, datetime=datetime)

    class Repository:
        _event_bus = bus
        sync_operation = names["sync_operation"]

    thread = threading.Thread(target=Repository().sync_operation, args=(LIBRARY,))
    thread.start()
    _, (event,), _ = await heard.next()
    await asyncio.to_thread(thread.join)
    assert (event.type, event.data) == (EventType.DOCUMENT_ADDED, {"document_id": "7"})


async def test_the_shorter_way_from_another_thread(bus: EventBus) -> None:
    await bus.publish(an_event())

    def synchronous() -> bool:
        future = bus.publish_threadsafe(an_event())
        assert isinstance(future, Future)
        return future.result(timeout=5).duplicate

    assert await asyncio.to_thread(synchronous) is False


async def test_statistics_have_the_shape_that_the_guide_shows(bus: EventBus) -> None:
    console = Calls()
    await bus.publish(an_event())
    await run("Programmatic Access", print=console.print)
    assert [(await console.next())[1][0].split(":")[0] for _ in range(3)] == ["Published", "Queue size", "Subscribers"]
    statistics = bus.get_statistics()
    shapes = {
        "total_published": int,
        "total_delivered": int,
        "active_subscribers": int,
        "queue_size": int,
        "events_by_type": dict,
        "average_delivery_latency_ms": float,
        "uptime_seconds": float,
    }
    assert {name: type(statistics[name]) for name in shapes} == shapes
    assert statistics["events_by_type"] == {"document.added": 1}


async def test_the_health_check_finds_the_bus_well(bus: EventBus) -> None:
    await bus.subscribe(lambda _: None)
    await bus.publish(an_event("custom"))
    assert await bus.caught_up()
    names = await run("Health Checks", event_bus=bus)
    assert names["is_event_bus_healthy"]()
    assert bus._worker_task is not None


async def test_an_audit_log(bus: EventBus) -> None:
    names, database = await run("2. Audit Logging"), Calls()
    await names["AuditLogger"](bus, database).start()
    await bus.publish(an_event(user_id="u1"))
    _, (entry,), _ = await database.next()
    assert (entry["event_type"], entry["library_id"], entry["user_id"]) == ("document.added", str(LIBRARY), "u1")
    assert entry["details"] == {"user_id": "u1"}


async def test_a_cache_is_invalidated(bus: EventBus) -> None:
    names, cache = await run("3. Cache Invalidation", EventType=EventType), Calls()
    await names["CacheManager"](bus, cache).start()
    await bus.publish(an_event("document.deleted"))
    await bus.publish(an_event("library.deleted"))
    assert await cache.next() == ("delete", (f"search_cache:{LIBRARY}",), {})
    assert await cache.next() == ("delete_pattern", (f"*:{LIBRARY}:*",), {})


@pytest.mark.parametrize(
    ("title", "service", "call"),
    [
        ("4. Notification System", "NotificationService", "send_notification"),
        ("6. Workflow Triggers", "WorkflowEngine", "trigger_workflow"),
    ],
)
async def test_services_that_act_on_events(bus: EventBus, title: str, service: str, call: str) -> None:
    names, calls = await run(title, EventType=EventType), Calls()
    names[service].__getattr__ = lambda _, name: getattr(calls, name)
    await bus.subscribe(names[service]().handle_event)
    await bus.publish(an_event(title="Dune", owner_id="u1"))
    assert (await calls.next())[0] == call


async def test_metrics_are_collected(bus: EventBus) -> None:
    names, metrics = await run("5. Analytics & Metrics", EventType=EventType), Calls()
    await names["MetricsCollector"](bus, metrics).start()
    await bus.publish(an_event("search.performed", duration_ms=145))
    assert await metrics.next() == ("increment", ("events.search.performed",), {})
    assert await metrics.next() == ("histogram", ("search.latency", 145), {})


async def test_an_idempotent_handler(bus: EventBus) -> None:
    seen: set[str] = set()
    worked = Calls()

    class Cache:
        async def exists(self, key: str) -> bool:
            return key in seen

        async def set(self, key: str, _: str, *, expire: int) -> None:
            assert expire == 3600
            seen.add(key)

    names = await run("3. Idempotency", cache=Cache(), logger=Calls(), process_event=worked.process)
    await bus.subscribe(names["idempotent_handler"])
    await bus.subscribe(names["idempotent_handler"])
    await bus.publish(an_event("custom"))
    assert await bus.caught_up()
    assert len(seen) == worked.made.qsize() == 1


async def test_a_resilient_handler_survives(bus: EventBus) -> None:
    letters = Calls()

    def fail(_: Event) -> None:
        raise ValueError("broken")

    names = await run("2. Error Handling", logger=Calls(), process_event=fail, send_to_dead_letter_queue=letters.send)
    await bus.subscribe(names["resilient_handler"])
    await bus.publish(an_event())
    assert (await letters.next())[2] == {"error": "broken"}


async def test_selecting_at_subscription(bus: EventBus) -> None:
    calls = Calls()

    async def handler(event: Event) -> None:
        calls.got(event.type)

    await run("4. Selective Subscription", event_bus=bus, EventType=EventType, handler=handler)
    for type_ in ("custom", "document.deleted", "library.created", "document.added"):
        await bus.publish(an_event(type_))
    assert [(await calls.next())[1][0] for _ in range(2)] == ["document.deleted", "document.added"]


async def test_cleaning_up(bus: EventBus) -> None:
    names = await run("5. Resource Cleanup", event_bus=bus)
    listener = names["EventListener"]()
    await listener.start()
    assert bus.get_statistics()["active_subscribers"] == 1
    await listener.stop()
    assert bus.get_statistics()["active_subscribers"] == 0


async def test_an_event_store(bus: EventBus) -> None:
    names, database = await run("Event Sourcing", uuid4=uuid4), Calls()
    store = names["EventStore"]()
    store.db = database
    await bus.subscribe(store.handle_event)
    await bus.publish(an_event("library.created", name="Books"))
    _, (row,), _ = await database.next()
    assert (row["type"], row["data"]) == ("library.created", {"name": "Books"})


async def test_filtering_by_a_function(bus: EventBus) -> None:
    calls = Calls()

    async def my_handler(event: Event) -> None:
        calls.got(event.data["n"])

    source = SAMPLES["Event Filtering"]
    definition, _, usage = source.partition("# Usage")
    names: dict[str, Any] = {}
    exec(compile(definition, "Event Filtering", "exec"), names)  # noqa: S102 - the sample is the point
    SAMPLES["Usage"] = usage
    await run("Usage", filter=names["EventFilter"](bus), my_handler=my_handler)
    for number, priority in enumerate(("low", "high", "low", "high")):
        await bus.publish(an_event(n=number, priority=priority))
    assert [(await calls.next())[1] for _ in range(2)] == [(1,), (3,)]
