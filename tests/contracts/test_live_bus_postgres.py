"""The bus over PostgreSQL keeps the promises of a live bus, and carries hints to other processes."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from gateway.bus.postgres import CHANNEL, PostgresBus
from tests.contracts.live_bus import ONE, TWO, Ear, LiveBusContract
from tests.servers.postgres import PostgresServer


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.url("postgres")


@pytest.fixture
async def bus(url: str) -> AsyncIterator[PostgresBus]:
    async with PostgresBus(url) as bus:
        await bus.listening.wait()
        yield bus


@pytest.fixture
async def far(url: str) -> AsyncIterator[PostgresBus]:
    """That of another process."""
    async with PostgresBus(url) as bus:
        await bus.listening.wait()
        yield bus


class TestPostgresBus(LiveBusContract):
    pass


async def test_another_process_hears_a_hint(bus: PostgresBus, far: PostgresBus) -> None:
    ear = Ear(far)
    bus.announce(ONE)
    await ear.hears(1)
    assert ear.pages == [None]


async def test_what_is_said_here_is_heard_here_once(bus: PostgresBus, far: PostgresBus) -> None:
    here, there = Ear(bus), Ear(far)
    bus.announce(ONE)
    await there.hears(1)
    bus.announce(TWO)  # said once the first has been, and an echo of that would be here
    await there.hears(2)
    assert here.pages == [ONE, TWO]


async def test_a_connection_that_was_cut_is_made_anew_and_listeners_are_told_to_look(
    bus: PostgresBus, far: PostgresBus, url: str
) -> None:
    ear = Ear(far)
    connection = await asyncpg.connect(url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE $1",
        f"%{CHANNEL}%",
    )
    await connection.close()
    await ear.hears(1)
    await bus.listening.wait()
    bus.announce(ONE)
    await ear.hears(2)
    assert ear.pages == [None, None]
