"""Publishes: as fast as it is answered (`flood`), or each event when it is due, whatever is answered when (`pace`)."""

import asyncio
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from gateway.bench.figures import percentile
from gateway.bench.ledger import numbers_of
from gateway.bench.marks import array_json, batch_json, event_json, one_of_many
from gateway.bench.roles.answering import Answer, answer_calls
from gateway.bench.roles.framing import Messages, post, post_head, status_of

TAKEN = frozenset({200, 201, 202})
"""201 is nchan's."""
LATE_SECONDS = 30
"""For so long after the last event was due answers are waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """One request: its events are *first* and the *count* - 1 after it."""

    first: int
    count: int
    due: float
    body: bytes


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, head: bytes, publishing: "Publishing") -> None:
        self._head = head
        self._publishing = publishing
        self._messages = Messages()
        self._errand: Errand | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none, but does what one does

    def send(self, errand: Errand) -> None:
        self._errand = errand
        self.transport.write(post(self._head, errand.body))

    def data_received(self, data: bytes) -> None:
        for head, _ in self._messages.feed(data):
            errand, self._errand = self._errand, None
            if errand is not None:
                self._publishing.answered(self, errand, taken=status_of(head) in TAKEN)

    def connection_lost(self, exc: Exception | None) -> None:
        self._publishing.lost(self, self._errand)


class Publishing:
    """One call of `flood` or `pace`."""

    def __init__(self, total: int) -> None:
        self._accepted = bytearray(total)
        self._refused = bytearray(total)
        self._open = total
        self._connections: set[Connection] = set()
        self._free: deque[Connection] = deque()
        self._waiting: deque[Errand] = deque()
        self._answered_after = array("d")
        self._sent_after = array("d")
        self._source: Iterator[Errand] | None = None
        self._all_answered = asyncio.get_running_loop().create_future()

    async def connect(self, connections: int, **target: Any) -> None:  # noqa: ANN401 - of `_head`
        host, port = target["host"], target["port"]
        head = post_head(target["path"], host=f"{host}:{port}", key=target["key"])
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, connection = await loop.create_connection(lambda: Connection(head, self), host, port)
            self._connections.add(connection)
            self._free.append(connection)

    async def flood(self, errands: Iterator[Errand]) -> Answer:
        """Each connection sends its next as soon as its last is answered."""
        began = time.monotonic()
        self._source = errands
        for _ in range(len(self._free)):
            self._next(self._free.popleft())
        await self._all_answered
        return self._report(began)

    async def pace(self, began: float, rate: float, batch: int, make: Callable[[int, float], Errand]) -> Answer:
        """Event *n* is due at *began* + n/*rate*, and so are all of its *batch*. One for which no connection is free
        waits, and time runs for it."""
        for first in range(0, self._open, batch):
            due = began + first / rate
            if (ahead := due - time.monotonic()) > 0:
                await asyncio.sleep(ahead)
            self._waiting.append(make(first, due))
            self._send_waiting()
        await asyncio.wait_for(self._all_answered, LATE_SECONDS)
        return self._report(began)

    def close(self) -> None:
        for connection in self._connections:
            connection.transport.abort()

    def _next(self, connection: Connection) -> None:
        assert self._source is not None  # noqa: S101 - set by flood
        errand = next(self._source, None)
        if errand is None:
            self._free.append(connection)
        else:
            connection.send(errand)

    def _send_waiting(self) -> None:
        now = time.monotonic()
        while self._waiting and self._free:
            errand = self._waiting.popleft()
            self._sent_after.append(now - errand.due)
            self._free.pop().send(errand)  # the last that was used: a server closes those that idle

    def answered(self, connection: Connection, errand: Errand, *, taken: bool) -> None:
        self._note(errand, taken=taken)
        if self._source is not None:
            self._next(connection)
        else:
            self._free.append(connection)
            self._send_waiting()

    def lost(self, connection: Connection, errand: Errand | None) -> None:
        """What was cut off counts as refused: it may be there, or may not."""
        self._connections.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if errand is not None:
            self._note(errand, taken=False)
        if not self._connections and not self._all_answered.done():
            self._all_answered.set_exception(ConnectionError("all connections were lost"))

    def _note(self, errand: Errand, *, taken: bool) -> None:
        flags = self._accepted if taken else self._refused
        for number in range(errand.first, errand.first + errand.count):
            flags[number] = 1
        self._answered_after.append(time.monotonic() - errand.due)
        self._open -= errand.count
        if self._open == 0 and not self._all_answered.done():
            self._all_answered.set_result(None)

    def _report(self, began: float) -> Answer:
        return {
            "accepted": f"{numbers_of(self._accepted):x}",
            "refused": f"{numbers_of(self._refused):x}",
            "began": began,
            "seconds": time.monotonic() - began,
            "answered_p50": percentile(self._answered_after, 50),
            "answered_p99": percentile(self._answered_after, 99),
            "sent_late_p99": percentile(self._sent_after, 99) if self._sent_after else 0.0,
        }


async def flood(*, library: str, events: int, batch: int, size: int, connections: int, **target: Any) -> Answer:  # noqa: ANN401 - of `connect`
    """Publish *events* in arrays of *batch*; 1: each by itself, and not as an array."""

    def errands() -> Iterator[Errand]:
        for first in range(0, events, batch):
            due, count = time.monotonic(), min(batch, events - first)
            body = event_json(first, due, library, size) if batch == 1 else batch_json(first, count, due, library, size)
            yield Errand(first=first, count=count, due=due, body=body)

    publishing = Publishing(events)
    await publishing.connect(min(connections, -(-events // batch)), **target)
    answer = await publishing.flood(errands())
    publishing.close()
    return answer


async def pace(
    *,
    library: str,
    events: int,
    rate: float,
    size: int,
    connections: int,
    batch: int = 1,
    libraries: int = 0,
    **target: Any,  # noqa: ANN401 - of `connect`
) -> Answer:
    """Publish *events*, *rate* a second, so many to a request. *libraries*: in turn to so many that are named after
    *library*, if it is not 0."""
    names = [one_of_many(library, place) for place in range(libraries)] or [library]

    def make(first: int, due: float) -> Errand:
        numbers = range(first, min(first + batch, events))
        made = [event_json(number, due, names[number % len(names)], size) for number in numbers]
        return Errand(first=first, count=len(made), due=due, body=made[0] if batch == 1 else array_json(made))

    publishing = Publishing(events)
    await publishing.connect(connections, **target)
    answer = await publishing.pace(time.monotonic() + 0.05, rate, batch, make)
    publishing.close()
    return answer


if __name__ == "__main__":
    answer_calls({"flood": flood, "pace": pace})
