"""Many streams in one process. What they are sent is counted as it comes; one of them, or each, reads every number."""

import asyncio
import resource
import time
from array import array
from typing import cast

from gateway.bench.figures import percentile
from gateway.bench.ledger import numbers_of
from gateway.bench.marks import MARK, marks_in
from gateway.bench.roles.answering import Answer, answer_calls

OPENING_AT_ONCE = 100
OPEN_SECONDS = 30
BUFFER_BYTES = 2**18
_REST = len(MARK) - 1


class Stream(asyncio.BufferedProtocol):
    """One stream. All of a process read into the same buffer: what stands there is counted before the next reads."""

    def __init__(self, request: bytes, begun: bytes, crowd: "Crowd") -> None:
        self._request = request
        self._begun = begun
        self._crowd = crowd
        self._tail = b""
        self.numbers: bytearray | None = None
        """How often each number came, where they are read."""
        self.count = 0
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none, but does what one does
        self.transport.write(self._request)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._crowd.buffer

    def buffer_updated(self, nbytes: int) -> None:
        buffer = self._crowd.buffer
        if not self.opened.done():
            self._tail += bytes(buffer[:nbytes])
            if self._begun in self._tail:
                self._tail = b""
                self.opened.set_result(None)
        elif self.numbers is None:
            came = buffer.count(MARK, 0, nbytes)
            if self._tail:  # a mark that began there
                came += (self._tail + buffer[: min(nbytes, _REST)]).count(MARK)
            if nbytes >= _REST:
                self._tail = bytes(buffer[nbytes - _REST : nbytes])
            else:
                self._tail = (self._tail + buffer[:nbytes])[-_REST:]
            self.count += came
            self._crowd.take(came)
        else:
            self._read(bytes(buffer[:nbytes]), self.numbers)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError(f"a stream ended as it began: {self._tail[:300]!r}"))

    def _read(self, data: bytes, numbers: bytearray) -> None:
        now = time.monotonic()
        text = self._tail + data
        # Up to the end of the last whole line; so no mark is cut in two.
        whole, _, self._tail = text.rpartition(b"\n")
        marks = marks_in(whole)
        for number, due in marks:
            if number < len(numbers):
                numbers[number] = min(255, numbers[number] + 1)
                self._crowd.latencies.append(now - due)
            else:
                self._crowd.strange += 1
        self.count += len(marks)
        self._crowd.take(len(marks))


class Crowd:
    def __init__(self) -> None:
        self.buffer = bytearray(BUFFER_BYTES)
        self.streams: list[Stream] = []
        self.latencies = array("d")
        self.strange = 0
        self._open = 0
        self._last = 0.0
        self._complete: asyncio.Future[None] | None = None

    async def join(self, *, host: str, port: int, path: str, key: str, begun: str, streams: int) -> Answer:
        """Open *streams* more; one has begun when it was sent *begun*."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        request = (
            f"GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {key}\r\n"
            "accept: text/event-stream\r\n\r\n"
        ).encode()
        loop = asyncio.get_running_loop()
        gate = asyncio.Semaphore(OPENING_AT_ONCE)

        async def join_one() -> Stream:
            async with gate:
                _, stream = await loop.create_connection(lambda: Stream(request, begun.encode(), self), host, port)
                await asyncio.wait_for(stream.opened, OPEN_SECONDS)
                return stream

        self.streams += await asyncio.gather(*(join_one() for _ in range(streams)))
        return {}

    async def leave(self) -> Answer:
        for stream in self.streams:
            stream.transport.abort()
        self.streams = []
        return {}

    async def expect(self, *, events: int, reading: int) -> Answer:
        """From now on count *events* at each, and read the numbers of the first *reading* of them."""
        for place, stream in enumerate(self.streams):
            stream.count = 0
            stream.numbers = bytearray(events) if place < reading else None
        self.latencies = array("d")
        self.strange = 0
        self._open = len(self.streams) * events
        self._complete = asyncio.get_running_loop().create_future()
        return {}

    def take(self, count: int) -> None:
        if count == 0:
            return
        self._open -= count
        self._last = time.monotonic()
        self._look()

    def _look(self) -> None:
        if self._open <= 0 and self._complete is not None and not self._complete.done():
            self._complete.set_result(None)

    async def report(self, *, refused: int, patience: float) -> Answer:
        """What has come, once all but those that were *refused* have, or *patience* is at its end."""
        assert self._complete is not None, "nothing is expected"  # noqa: S101 - whoever asks has said so before
        self._open -= refused * len(self.streams)
        self._look()
        await asyncio.wait([self._complete], timeout=patience)
        read = [stream.numbers for stream in self.streams if stream.numbers is not None]
        return {
            "counts": [stream.count for stream in self.streams if stream.numbers is None],
            "came": [f"{numbers_of(numbers):x}" for numbers in read],
            "again": sum(max(0, count - 1) for numbers in read for count in numbers),
            "strange": self.strange,
            "last": self._last,
            "p50": percentile(self.latencies, 50) if self.latencies else None,
            "p99": percentile(self.latencies, 99) if self.latencies else None,
        }


if __name__ == "__main__":
    crowd = Crowd()
    answer_calls({"join": crowd.join, "leave": crowd.leave, "expect": crowd.expect, "report": crowd.report})
