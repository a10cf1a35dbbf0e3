"""Many streams in one process. What they are sent is counted as it comes; one of them, or each, reads every number.

Either every event is for all of them, or (`spread`) each has a library of its own, and gets one event in its turn.
"""

import asyncio
import resource
import time
from array import array
from typing import cast

from gateway.bench.figures import percentile
from gateway.bench.ledger import numbers_of
from gateway.bench.marks import MARK, PLACE, marks_in
from gateway.bench.roles.answering import Answer, answer_calls

OPENING_AT_ONCE = 100
OPEN_SECONDS = 30
BUFFER_BYTES = 2**18
_REST = len(MARK) - 1


class Stream(asyncio.BufferedProtocol):
    """One stream. All of a process read into the same buffer: what stands there is counted before the next reads."""

    def __init__(self, request: bytes, begun: bytes, crowd: "Crowd", *, place: int = 0) -> None:
        self._request = request
        self._begun = begun
        self._crowd = crowd
        self.place = place
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
        if self.opened.done():
            self._take(nbytes)
            return
        self._tail += bytes(self._crowd.buffer[:nbytes])
        _, begun, rest = self._tail.partition(self._begun)
        if begun:
            self._tail = b""
            self.opened.set_result(None)
            # One that comes back gets its first events with it.
            self._crowd.buffer[: len(rest)] = rest
            self._take(len(rest))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError(f"a stream ended as it began: {self._tail[:300]!r}"))

    def _take(self, nbytes: int) -> None:
        buffer = self._crowd.buffer
        if self.numbers is not None:
            self._read(bytes(buffer[:nbytes]), self.numbers)
            return
        came = buffer.count(MARK, 0, nbytes)
        if self._tail:  # a mark that began there
            came += (self._tail + buffer[: min(nbytes, _REST)]).count(MARK)
        if nbytes >= _REST:
            self._tail = bytes(buffer[nbytes - _REST : nbytes])
        else:
            self._tail = (self._tail + buffer[:nbytes])[-_REST:]
        self.count += came
        self._crowd.take(came)

    def _read(self, data: bytes, numbers: bytearray) -> None:
        now = time.monotonic()
        text = self._tail + data
        # Up to the end of the last whole line; so no mark is cut in two.
        whole, _, self._tail = text.rpartition(b"\n")
        marks = marks_in(whole)
        for number, due in marks:
            if number < len(numbers) and self._crowd.is_for(self.place, number):
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
        self._events = self._reading = 0
        self._shared: bytearray | None = None
        """The numbers of all streams together, where each event is for one of them."""
        self._each = 0
        """How many get an event."""
        self._spread_over = 0
        self._open = 0
        self._last = 0.0
        self._complete: asyncio.Future[None] | None = None

    async def join(
        self,
        *,
        host: str,
        port: int,
        path: str,
        key: str,
        begun: str,
        streams: int,
        after: str = "",
        at_once: int = OPENING_AT_ONCE,
    ) -> Answer:
        """Open *streams* more, and say how long it took; one has begun when it was sent *begun*. PLACE in *path* is
        the number of the stream; *after*: the cursor of the last event that each has seen, if it comes back."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        seen = f"last-event-id: {after}\r\n" if after else ""
        head = f"host: {host}:{port}\r\nauthorization: Bearer {key}\r\n{seen}accept: text/event-stream\r\n\r\n"
        loop = asyncio.get_running_loop()
        gate = asyncio.Semaphore(at_once)

        async def join_one(place: int) -> None:
            own = path.replace(PLACE, str(place))
            stream = Stream(f"GET {own} HTTP/1.1\r\n{head}".encode(), begun.encode(), self, place=place)
            self.assign(stream)
            self.streams.append(stream)
            async with gate:
                await loop.create_connection(lambda: stream, host, port)
                await asyncio.wait_for(stream.opened, OPEN_SECONDS)

        began, first = time.monotonic(), len(self.streams)
        await asyncio.gather(*(join_one(first + number) for number in range(streams)))
        return {"began": began, "seconds": time.monotonic() - began}

    async def leave(self) -> Answer:
        for stream in self.streams:
            stream.transport.abort()
        self.streams = []
        return {}

    async def expect(self, *, events: int, reading: int, streams: int = 0, spread: bool = False) -> Answer:
        """From now on count *events* at each, and read the numbers of the first *reading* of them.

        *streams*: those that are yet to come count too, so many in all. *spread*: each event is for one of them, in
        their turn, and all are read.
        """
        expected = streams or len(self.streams)
        self._events, self._reading = events, reading
        self._spread_over = expected if spread else 0
        self._shared = bytearray(events) if spread else None
        for stream in self.streams:
            self.assign(stream)
        self.latencies = array("d")
        self.strange = 0
        self._each = 1 if spread else expected
        self._open = self._each * events
        self._complete = asyncio.get_running_loop().create_future()
        return {}

    def is_for(self, place: int, number: int) -> bool:
        return self._shared is None or number % self._spread_over == place

    def take(self, count: int) -> None:
        if count == 0:
            return
        self._open -= count
        self._last = time.monotonic()
        self._look()

    def assign(self, stream: Stream) -> None:
        """What it has to count, or to read."""
        stream.count = 0
        if self._shared is not None:
            stream.numbers = self._shared
        else:
            stream.numbers = bytearray(self._events) if stream.place < self._reading else None

    def _look(self) -> None:
        if self._open <= 0 and self._complete is not None and not self._complete.done():
            self._complete.set_result(None)

    async def report(self, *, refused: int, patience: float) -> Answer:
        """What has come, once all but those that were *refused* have, or *patience* is at its end."""
        assert self._complete is not None, "nothing is expected"  # noqa: S101 - whoever asks has said so before
        self._open -= refused * self._each
        self._look()
        await asyncio.wait([self._complete], timeout=patience)
        read = [stream.numbers for stream in self.streams if stream.numbers is not None]
        if self._shared is not None:
            read = [self._shared]
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
