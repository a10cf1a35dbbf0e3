"""Where what sqlite3 does is done: it waits for the disk, and an event loop must not.

    a reader:    loop ──statement────▶ a thread of its own ──rows───▶ loop        one trip a statement
    the writer:  loop ──transaction──▶ its thread ──────────result──▶ loop        one trip a transaction
                                       takes its statements in place, then the next transaction that waits

Each trip waits for the interpreter's lock twice. With four a statement (cursor, execute, fetch, close), as aiosqlite
takes them, a publish of a dozen statements took 90 ms beside a busy loop; taken as one trip it took 10.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Runs(Protocol):
    """Where a connection's steps are taken: one after the other, in the order in which they were asked for."""

    def __call__(self, step: Callable[[], T], /) -> Awaitable[T]: ...


class InPlace:
    """In the thread that asks, which waits."""

    async def __call__(self, step: Callable[[], T], /) -> T:
        return step()


class InThread:
    """In a thread of its own."""

    def __init__(self, name: str) -> None:
        self._thread: Executor = ThreadPoolExecutor(1, thread_name_prefix=name)

    def __call__(self, step: Callable[[], T], /) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, step)

    def soon(self, step: Callable[[], object]) -> None:
        """Take *step* after all that was asked for before, whoever waits for it or not."""
        self._thread.submit(step)

    def end(self) -> None:
        """No more steps; those that were asked for are taken."""
        self._thread.shutdown(wait=True)


def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """What *work* answers. Its steps are taken in place, so that it never waits, and needs no event loop.

    Raises:
        RuntimeError: it waits for something.
    """
    try:
        work.send(None)
    except StopIteration as end:
        answer: T = end.value
        return answer
    work.close()
    raise RuntimeError("a transaction may await nothing but its statements")
