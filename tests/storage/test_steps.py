"""The way to SQLite: where steps are taken, and in which order."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial

import pytest

from gateway.storage.engines.sqlite.steps import InPlace, InThread, InTurns, to_its_end


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


async def test_what_can_wait_goes_behind_what_somebody_waits_for_and_keeps_its_order() -> None:
    thread = InTurns("turns")
    may_go_on = threading.Event()
    taken: list[str] = []
    turns: list[asyncio.Future[object]] = [asyncio.ensure_future(thread.turn(may_go_on.wait, can_wait=True))]
    for name in ("patient 1", "urgent 1", "patient 2", "urgent 2"):
        step: Callable[[], object] = partial(taken.append, name)
        turns.append(asyncio.ensure_future(thread.turn(step, can_wait=name.startswith("patient"))))
    await asyncio.sleep(0)
    may_go_on.set()
    await asyncio.gather(*turns)
    thread.end()
    assert taken == ["urgent 1", "urgent 2", "patient 1", "patient 2"]


async def test_a_turn_answers_what_its_step_did() -> None:
    thread = InTurns("turns")
    assert await thread.turn(lambda: 5, can_wait=True) == 5
    with pytest.raises(KeyError, match="nothing"):
        await thread.turn(lambda: dict[str, int]()["nothing"], can_wait=False)
    assert await thread.turn(lambda: 6, can_wait=False) == 6
    thread.end()


async def test_a_turn_that_was_given_up_before_it_came_is_passed_over() -> None:
    thread = InTurns("turns")
    may_go_on = threading.Event()
    taken: list[str] = []
    first = asyncio.ensure_future(thread.turn(may_go_on.wait, can_wait=False))
    second = asyncio.ensure_future(thread.turn(lambda: taken.append("given up"), can_wait=False))
    last = asyncio.ensure_future(thread.turn(lambda: taken.append("last"), can_wait=False))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    may_go_on.set()
    await asyncio.gather(first, last)
    thread.end()
    assert taken == ["last"]


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
