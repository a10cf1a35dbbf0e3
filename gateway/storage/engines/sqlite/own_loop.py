"""An event loop in a thread of its own, for coroutines that keep their thread busy or waiting."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")


class OwnLoop:
    """`async with OwnLoop(name)` starts it; `run` takes a coroutine there and its answer back, in one trip."""

    def __init__(self, name: str) -> None:
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name=name, daemon=True)

    async def __aenter__(self) -> Self:
        self._thread.start()
        await asyncio.to_thread(self._is_up.wait)
        return self

    async def __aexit__(self, *_: object) -> None:
        """What still runs there is cancelled."""
        self._loop.call_soon_threadsafe(self._ended.set)
        await asyncio.to_thread(self._thread.join)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Raises whatever *work* raises. Cancelled, it cancels *work*."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._is_up.set()
        await self._ended.wait()
