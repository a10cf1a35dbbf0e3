"""The bus over NATS keeps the promises of a live bus, and carries pages to other processes."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from nats.aio.client import Client

from gateway.bus.nats import SUBJECT, NatsBus
from gateway.events import Page
from gateway.storage.memory import MemoryEventLog
from tests.builders import a_page, an_event
from tests.contracts.live_bus import ONE, TWO, Ear, LiveBusContract
from tests.servers.nats import MAX_PAYLOAD, NatsServer, nats_server
from tests.until import until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


def a_bus(server: NatsServer, *, epoch: str = "epoch") -> NatsBus:
    return NatsBus(server.url, MemoryEventLog(epoch=epoch))


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[NatsBus]:
    async with a_bus(server) as bus:
        await bus.listening.wait()
        yield bus


@pytest.fixture
async def far(server: NatsServer) -> AsyncIterator[NatsBus]:
    """That of another process."""
    async with a_bus(server) as bus:
        await bus.listening.wait()
        yield bus


def as_it_is(page: Page | None) -> list[object]:
    assert page is not None
    return [page.after, *({**vars(event), "body": event.body} for event in page.events)]


class TestNatsBus(LiveBusContract):
    pass


async def test_another_process_gets_the_page_as_it_is(bus: NatsBus, far: NatsBus) -> None:
    ear = Ear(far)
    page = a_page(
        [
            an_event(cursor=7, data='{"text":"naïve"}'.encode(), audience=frozenset({"books", "films"})),
            an_event(cursor=8, audience=frozenset()),
            an_event(cursor=9, type="gateway.key.revoked", library_id="gateway"),
        ]
    )
    bus.announce(page)
    await ear.hears(1)
    assert as_it_is(ear.pages[0]) == as_it_is(page)


async def test_a_page_that_is_too_large_comes_as_a_hint_and_those_after_it_whole(bus: NatsBus, far: NatsBus) -> None:
    ear = Ear(far)
    bus.announce(a_page([an_event(cursor=1, data=b'{"s":"%b"}' % (b"x" * MAX_PAYLOAD))]))
    bus.announce(TWO)
    await ear.hears(2)
    assert ear.pages[0] is None
    assert as_it_is(ear.pages[1]) == as_it_is(TWO)


async def test_what_is_said_here_is_heard_here_once(bus: NatsBus, far: NatsBus) -> None:
    here, there = Ear(bus), Ear(far)
    bus.announce(ONE)
    await there.hears(1)
    far.announce(TWO)
    await here.hears(2)
    assert here.pages[0] is ONE
    assert as_it_is(here.pages[1]) == as_it_is(TWO)


async def test_other_logs_on_the_same_server_are_not_heard(bus: NatsBus, far: NatsBus, server: NatsServer) -> None:
    ear = Ear(far)
    async with a_bus(server, epoch="another") as other:
        await other.listening.wait()
        other.announce(ONE)
        echo = Ear(other)
        other.announce(ONE)
        await echo.hears(1)
    bus.announce(TWO)
    await ear.hears(1)
    assert as_it_is(ear.pages[0]) == as_it_is(TWO)


@pytest.mark.parametrize("nonsense", [b"", b"nonsense", b"\x93\x00\x05\x90"])
async def test_what_is_not_understood_is_a_reason_to_look(far: NatsBus, server: NatsServer, nonsense: bytes) -> None:
    ear = Ear(far)
    client = Client()
    await client.connect(server.url)
    await client.publish(f"{SUBJECT}.epoch", nonsense)
    await client.close()
    await ear.hears(1)
    assert ear.pages == [None]


async def test_who_was_cut_off_is_told_to_look(server: NatsServer, far: NatsBus) -> None:
    ear = Ear(far)
    server.kill()
    server.start()
    await ear.hears(1)
    assert ear.pages == [None]


async def test_it_starts_and_announces_without_a_server_and_goes_on_when_there_is_one(
    server: NatsServer, bus: NatsBus, far: NatsBus
) -> None:
    server.kill()
    try:
        async with a_bus(server) as late:
            here = Ear(late)
            late.announce(ONE)
            await here.hears(1)
            there = Ear(far)
            await asyncio.to_thread(server.start)
            await late.listening.wait()
            await there.hears(1)  # a hint: it was cut off meanwhile
            late.announce(TWO)
            await until(lambda: any(page is not None and page.last == TWO.last for page in there.pages))
    finally:
        if not server.is_up:
            server.start()
