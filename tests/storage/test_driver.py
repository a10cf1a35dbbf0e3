"""The way to SQLite: where steps are taken, and in which order."""

import asyncio
import threading
from collections.abc import Awaitable

import pytest

from gateway.storage.engines.sqlite.driver import InThread
from gateway.storage.engines.sqlite.own_loop import OwnLoop


async def test_steps_in_a_thread_hold_up_nobody_else_and_keep_their_order() -> None:
    thread = InThread("steps")
    may_go_on = threading.Event()
    taken: list[str] = []

    def slow() -> None:
        may_go_on.wait()
        taken.append(f"slow, by {threading.current_thread().name}")

    first = asyncio.ensure_future(thread(slow))
    thread.soon(lambda: taken.append("asked for by nobody"))
    last = asyncio.ensure_future(thread(lambda: taken.append("last")))
    await asyncio.sleep(0)  # this loop goes on while the thread waits
    first.cancel()  # whoever asked has gone; the step itself goes to its end
    may_go_on.set()
    await last
    assert taken == ["slow, by steps_0", "asked for by nobody", "last"]
    thread.end()


async def test_at_its_end_a_thread_has_taken_all_steps() -> None:
    thread = InThread("steps")
    taken: list[int] = []
    for step in range(100):
        thread.soon(lambda step=step: taken.append(step))  # type: ignore[misc] # mypy cannot tell what it takes
    thread.end()
    assert taken == list(range(100))


async def test_a_loop_of_its_own_answers_raises_and_is_cancelled() -> None:
    began = threading.Event()

    async def thread() -> str:
        return threading.current_thread().name

    async def fail() -> None:
        raise LookupError

    async def forever() -> None:
        began.set()
        await asyncio.Event().wait()

    async with OwnLoop("elsewhere") as own:
        assert await own.run(thread()) == "elsewhere"
        with pytest.raises(LookupError):
            await own.run(fail())
        waiting: Awaitable[None] = asyncio.ensure_future(own.run(forever()))
        await asyncio.to_thread(began.wait)
        asyncio.ensure_future(waiting).cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert not [one for one in threading.enumerate() if one.name == "elsewhere"]
