"""Several processes behind one port: a supervisor that listens, and workers that take connections from its socket.

    supervisor ── socket, lifeline ──▶ worker 1 … n      each a whole gateway
        │  ▲ ready, or its end                            one that ends by itself is replaced
        │  └──────────────────────── worker               a lifeline that ends ends the worker
        ├─ SIGTERM, SIGINT ─▶ the socket closes, each worker drains ─▶ exit 0
        └─ once more ───────▶ they are killed ────────────────────────▶ exit 1

The lifeline is a pair of sockets, of which each has one: the worker says on it that it is ready, and reads from it that
the supervisor is no more, however that ended.
"""

import asyncio
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Self

import structlog

from gateway.settings import Settings
from gateway.storage.engines.postgres.url import POSTGRES

DRAIN_SECONDS = 10.0
"""A worker drains within half of it. What is still there then is killed."""
STEADY_SECONDS = 10.0
"""One that ends sooner than this after its start ended at once: the next one waits."""
SHORTEST_PAUSE = 0.2
LONGEST_PAUSE = 30.0
_READY = b"r"

_logger = structlog.get_logger(__name__)


def refusal(settings: Settings, count: int) -> str | None:
    """Why *count* processes cannot share what *settings* name; None if they can."""
    if not settings.database_url.startswith(POSTGRES):
        return (
            f"--workers {count}: SQLite serves one process only. Set GATEWAY_DATABASE_URL to a PostgreSQL database "
            "(`gateway copy` takes this one there)"
        )
    if settings.bus == "memory://":
        return (
            f"--workers {count}: over GATEWAY_BUS_URL=memory:// they would not hear of each other's events. "
            "Leave it out, which is PostgreSQL's own, or set nats://host:4222"
        )
    return None


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """Raises:
    OSError: it cannot be listened on, in words that name it.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        return socket.create_server((str(address[0]), port), family=family, backlog=backlog)
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """What a worker gets from its supervisor, as an argument of its command: `<number>:<socket>:<lifeline>`."""

    number: int
    listener: int
    lifeline: int

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises:
        ValueError: *text* is nothing that a supervisor writes.
        """
        number, listener, lifeline = map(int, text.split(":"))
        return cls(number=number, listener=listener, lifeline=lifeline)

    def __str__(self) -> str:
        return f"{self.number}:{self.listener}:{self.lifeline}"


class Lifeline:
    """The worker's end."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.settimeout(0)

    def say_ready(self) -> None:
        try:
            self._socket.send(_READY)
        except OSError:  # nobody is there any more, which is read from it, too
            _logger.warning("worker.alone")

    @asynccontextmanager
    async def within(self, inner: AbstractAsyncContextManager[None]) -> AsyncIterator[None]:
        """*inner*, and an end like at SIGTERM when the supervisor is no more."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket, self._ended)
        try:
            async with inner:
                yield
        finally:
            loop.remove_reader(self._socket)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        _logger.warning("worker.alone")
        os.kill(os.getpid(), signal.SIGTERM)


class Workers:
    """*command* starts one of *count*; it is given what it inherits as its last argument. *ready* is called once, when
    the first one takes connections."""

    def __init__(
        self,
        command: Sequence[str],
        listener: socket.socket,
        *,
        count: int,
        ready: Callable[[], None],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = command
        self._listener = listener
        self._count = count
        self._ready = ready
        self._pause = pause
        self._monotonic = monotonic
        self._processes: set[Process] = set()
        self._stopping = asyncio.Event()
        self._was_ready = False
        self._status = 0

    async def run(self) -> int:
        """Until SIGTERM or SIGINT; the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        kept = [
            asyncio.create_task(self._keep(number), name=f"worker-{number}") for number in range(1, self._count + 1)
        ]
        await self._stopping.wait()
        await asyncio.wait(kept, timeout=DRAIN_SECONDS)
        self._kill()
        await asyncio.gather(*kept)
        return self._status

    def stop(self) -> None:
        """Drain all; called again, kill them."""
        if self._stopping.is_set():
            self._kill()
            return
        self._stopping.set()
        self._listener.close()
        for process in self._processes:
            process.terminate()

    def _kill(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                _logger.error("worker.killed", pid=process.pid)
                self._status = 1
                process.kill()

    async def _keep(self, number: int) -> None:
        """One worker, and another when it has ended, until all are to stop."""
        pause = SHORTEST_PAUSE
        while not self._stopping.is_set():
            began = self._monotonic()
            try:
                status = await self._one(number)
            except OSError as error:  # out of processes, memory or file descriptors: later there may be some
                _logger.warning("worker.not_started", worker=number, error=str(error))
                status = -1
            if self._stopping.is_set():
                return
            lived = self._monotonic() - began
            _logger.error("worker.ended", worker=number, status=status, lived_seconds=round(lived, 1))
            if not self._was_ready and status > 0:
                # The first ones cannot start, and have said why. It will be no different with the next.
                self._status = status
                self.stop()
                return
            if lived >= STEADY_SECONDS:
                pause = SHORTEST_PAUSE
                continue
            await self._rest(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _one(self, number: int) -> int:
        """A worker, from its start to its end; its exit status, negative if a signal ended it."""
        ours, theirs = socket.socketpair()
        with ours:
            ours.settimeout(0)
            with theirs:
                inherited = Inherited(number=number, listener=self._listener.fileno(), lifeline=theirs.fileno())
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    str(inherited),
                    stdin=DEVNULL,
                    pass_fds=(inherited.listener, inherited.lifeline),
                    start_new_session=True,  # Ctrl+C is for the supervisor, which tells them once
                )
            self._processes.add(process)
            if self._stopping.is_set():
                process.terminate()
            listening = asyncio.create_task(self._hear(ours, number, process.pid))
            try:
                return await process.wait()
            finally:
                self._processes.discard(process)
                listening.cancel()
                await asyncio.wait([listening])

    async def _hear(self, lifeline: socket.socket, number: int, pid: int) -> None:
        if await asyncio.get_running_loop().sock_recv(lifeline, 1) != _READY:
            return
        _logger.info("worker.ready", worker=number, pid=pid)
        if not self._was_ready:
            self._was_ready = True
            self._ready()

    async def _rest(self, seconds: float) -> None:
        resting = asyncio.ensure_future(self._pause(seconds))
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait([resting, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in (resting, stopping):
            task.cancel()
        await asyncio.wait([resting, stopping])


def own_command() -> list[str]:
    """What starts a process like this one, ready for what it inherits."""
    return [sys.executable, "-m", "gateway.cli", *sys.argv[1:], "--inherited"]
