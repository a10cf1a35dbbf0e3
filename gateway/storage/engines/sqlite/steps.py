"""Where what sqlite3 does is done: it waits for the disk, and an event loop must not.

    a reader:    loop ──statement────▶ a thread of its own ──rows───▶ loop        one trip a statement
    the writer:  loop ──transaction──▶ its thread ──────────result──▶ loop        one trip a transaction
                                       takes its statements in place, then the next transaction that waits

Each trip waits for the interpreter's lock twice. With four a statement (cursor, execute, fetch, close), as aiosqlite
takes them, a publish of a dozen statements took 90 ms beside a busy loop; taken as one trip it took 10.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor, Future, ThreadPoolExecutor
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


class InTurns(InThread):
    """In a thread of its own, too; what can wait goes behind what somebody waits for."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._urgent: deque[Callable[[], None]] = deque()
        self._patient: deque[Callable[[], None]] = deque()

    def turn(self, step: Callable[[], T], *, can_wait: bool) -> Awaitable[T]:
        done: Future[T] = Future()

        def take() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                done.set_result(step())
            except BaseException as error:  # noqa: BLE001 - whoever waits gets it
                done.set_exception(error)

        (self._patient if can_wait else self._urgent).append(take)
        self.soon(self._take_one)
        return asyncio.wrap_future(done)

    def _take_one(self) -> None:
        (self._urgent or self._patient).popleft()()


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
