"""What every LiveBus promises. An adapter passes by subclassing `LiveBusContract` with a `bus` fixture."""

import asyncio

from gateway.events import Page
from gateway.ports.log import LiveBus
from tests.builders import a_page, an_event

ONE, TWO = a_page([an_event(cursor=1)]), a_page([an_event(cursor=2)])


class LiveBusContract:
    async def test_every_listener_hears_of_every_page_in_order(self, bus: LiveBus) -> None:
        first, second = Ear(bus), Ear(bus)
        bus.announce(ONE)
        bus.announce(TWO)
        await first.hears(2)
        await second.hears(2)
        assert first.pages == second.pages

    async def test_a_page_that_is_carried_is_the_page(self, bus: LiveBus) -> None:
        ear = Ear(bus)
        bus.announce(ONE)
        await ear.hears(1)
        (page,) = ear.pages
        if page is not None:
            assert (page.after, page.last) == (0, 1)
            assert [event.body for event in page.events] == [event.body for event in ONE.events]

    async def test_who_has_left_hears_nothing(self, bus: LiveBus) -> None:
        gone, here = Ear(bus), Ear(bus)
        gone.leave()
        bus.announce(ONE)
        await here.hears(1)
        assert gone.pages == []

    async def test_leaving_twice_harms_nobody(self, bus: LiveBus) -> None:
        gone, here = Ear(bus), Ear(bus)
        gone.leave()
        gone.leave()
        bus.announce(ONE)
        await here.hears(1)

    async def test_a_listener_that_fails_harms_no_other(self, bus: LiveBus) -> None:
        def fail(_: Page | None) -> None:
            raise RuntimeError("a bug in a listener")

        bus.listen(fail)
        ear = Ear(bus)
        bus.announce(ONE)
        bus.announce(TWO)
        await ear.hears(2)

    async def test_a_listener_may_leave_while_it_is_told(self, bus: LiveBus) -> None:
        heard: list[Page | None] = []

        def once(page: Page | None) -> None:
            heard.append(page)
            leave()

        leave = bus.listen(once)
        ear = Ear(bus)
        bus.announce(ONE)
        bus.announce(TWO)
        await ear.hears(2)
        assert len(heard) == 1


class Ear:
    """Listens, and can be waited for."""

    def __init__(self, bus: LiveBus) -> None:
        self.pages: list[Page | None] = []
        self._news = asyncio.Event()
        self.leave = bus.listen(self._hear)

    def _hear(self, page: Page | None) -> None:
        self.pages.append(page)
        self._news.set()

    async def hears(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.pages) < count:
                self._news.clear()
                await self._news.wait()
