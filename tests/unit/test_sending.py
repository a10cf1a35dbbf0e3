"""How sending looks where one process has the store to itself, and where a process does not send."""

import asyncio

import pytest

from gateway.sending.sending import AloneSending, NotSending
from tests.fakes.clock import FakeClock, until
from tests.fakes.deliveries import MemoryDeliveryStore, ScriptedSender, a_delivery, an_endpoint
from webhooks.dispatcher import Dispatcher


class Alone:
    def __init__(self) -> None:
        self.store = MemoryDeliveryStore()
        self.store.add(an_endpoint())
        self.clock = FakeClock()
        self.sender = ScriptedSender(self.clock)
        self.made: list[Dispatcher] = []
        self.sending = AloneSending(self.make)

    def make(self) -> Dispatcher:
        self.made.append(made := Dispatcher(self.store, self.sender, clock=self.clock))
        return made


async def test_alone_it_sends_for_all_lanes() -> None:
    alone = Alone()
    run = asyncio.create_task(alone.sending.run())
    alone.store.add(delivery := a_delivery())
    alone.sending.offer({"sub_1": [delivery]})
    await until(lambda: len(alone.sender.sent) == 1)
    assert (alone.sending.lanes, alone.sending.is_stuck("sub_1")) == (1, False)
    alone.store.add(a_delivery(2), a_delivery(3))
    alone.sending.wake(["sub_1"])
    await until(lambda: len(alone.sender.sent) == 3)
    alone.sending.changed("sub_1")
    alone.sending.noticed("sub_1")
    await alone.sending.drain()
    await run
    assert alone.sending.in_flight == 0
    assert len(alone.made) == 1


async def test_after_a_fault_of_ours_it_begins_anew() -> None:
    alone = Alone()
    run = asyncio.create_task(alone.sending.run())
    await until(lambda: alone.made[0]._settling is not None)
    settling = alone.made[0]._settling
    assert settling is not None
    settling.cancel()
    await alone.clock.advance(1)
    with pytest.raises(asyncio.CancelledError):
        await run
    again = asyncio.create_task(alone.sending.run())
    alone.store.add(a_delivery())
    alone.sending.wake(["sub_1"])
    await until(lambda: len(alone.sender.sent) == 1)
    assert len(alone.made) == 2
    await alone.sending.drain()
    await again


async def test_who_does_not_send_tells_the_others() -> None:
    said: list[tuple[str, list[str]]] = []
    sending = NotSending(lambda kind, ids: said.append((kind, list(ids))))
    run = asyncio.create_task(sending.run())
    sending.wake(["sub_1"])
    sending.offer({"sub_2": [a_delivery()]})
    sending.changed("sub_3")
    sending.noticed("sub_4")
    assert said == [("wake", ["sub_1"]), ("wake", ["sub_2"]), ("changed", ["sub_3"])]
    assert (sending.lanes, sending.in_flight, sending.is_stuck("sub_1")) == (0, 0, False)
    await sending.drain()
    await run


async def test_where_nobody_else_can_send_it_tells_nobody() -> None:
    sending = NotSending(None)
    sending.wake(["sub_1"])
    sending.changed("sub_1")
