"""The bus in memory keeps the promises of a live bus."""

import pytest

from gateway.bus.memory import MemoryBus
from tests.contracts.live_bus import ONE, Ear, LiveBusContract


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


class TestMemoryBus(LiveBusContract):
    pass


async def test_it_carries_the_very_page(bus: MemoryBus) -> None:
    ear = Ear(bus)
    bus.announce(ONE)
    assert ear.pages[0] is ONE
