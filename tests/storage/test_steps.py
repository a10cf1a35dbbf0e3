"""The way to SQLite: where steps are taken, and in which order."""

import asyncio
import threading

import pytest

from gateway.storage.engines.sqlite.steps import InPlace, InThread, to_its_end


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


def test_a_transaction_is_taken_to_its_end() -> None:
    run = InPlace()

    async def work() -> int:
        return await run(lambda: 1) + await run(lambda: 2)

    async def fail() -> None:
        await run(lambda: dict[str, int]()["nothing"])

    assert to_its_end(work()) == 3
    with pytest.raises(KeyError, match="nothing"):
        to_its_end(fail())


def test_a_transaction_that_waits_for_something_else_is_refused() -> None:
    is_closed = False

    async def wait() -> None:
        nonlocal is_closed
        try:
            await asyncio.sleep(0)
        finally:
            is_closed = True

    with pytest.raises(RuntimeError, match="may await nothing but its statements"):
        to_its_end(wait())
    assert is_closed
