"""Call a plain function off the event loop, in a thread that is its own: if it hangs, it hangs alone."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any


@dataclass(frozen=True, slots=True)
class _Call:
    argument: Any
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[Any]"


class OwnThread:
    """One call at a time, in order. The thread is a daemon: a function that never returns does not keep the process."""

    def __init__(self, function: Callable[[Any], Any], name: str) -> None:
        self._function = function
        self._name = name
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._last: asyncio.Future[Any] | None = None

    async def call(self, argument: object) -> Any:  # noqa: ANN401 - whatever the function answers
        """Raises what the function raises. A call that is cancelled here runs on there; see `settled`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        self._last = loop.create_future()
        self._calls.put(_Call(argument, loop, self._last))
        return await asyncio.shield(self._last)

    async def settled(self) -> None:
        """Wait until the last call has returned, however it went."""
        if self._last is not None:
            await asyncio.wait([self._last])
            if not self._last.cancelled():
                self._last.exception()  # looked at, so that nobody complains that it was not

    def close(self) -> None:
        """No more calls; the thread ends after the one it is in."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            outcome = self._outcome(call.argument)
            try:
                call.loop.call_soon_threadsafe(_tell, call.answer, outcome)
            except RuntimeError:
                return  # the loop is closed: nobody waits, and nobody will call again

    def _outcome(self, argument: object) -> tuple[Any, BaseException | None]:
        try:
            return self._function(argument), None
        except BaseException as error:  # noqa: BLE001 - the caller gets it; a thread has nobody else to raise it to
            return None, error


def _tell(answer: "asyncio.Future[Any]", outcome: tuple[Any, BaseException | None]) -> None:
    result, error = outcome
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        # A future takes no StopIteration, and nothing that would end the loop may be raised in it.
        is_fit = isinstance(error, Exception) and not isinstance(error, StopIteration)
        answer.set_exception(error if is_fit else RuntimeError(repr(error)))
