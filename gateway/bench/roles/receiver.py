"""Receives webhooks: notes the number of each and how late it came. `/0`, `/1` … are receivers apart."""

import asyncio
import time
from array import array
from typing import cast

from gateway.bench.figures import percentile
from gateway.bench.ledger import numbers_of
from gateway.bench.marks import marks_in
from gateway.bench.roles.answering import Answer, answer_calls
from gateway.bench.roles.framing import Messages

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Round:
    """What came since `expect`."""

    def __init__(self, *, receivers: int, events: int, losing: int) -> None:
        self._times = [bytearray(events) for _ in range(receivers)]
        self._losing = losing
        self._latencies = array("d")
        self._strange = 0
        self._open = receivers * events
        self._first: float | None = None
        self._last = 0.0
        self.complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, path: bytes, body: bytes) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
        receiver = int(path[1:]) if path[1:].isdigit() else len(self._times)
        for number, due in marks_in(body):
            if receiver >= len(self._times) or number >= len(self._times[receiver]):
                self._strange += 1
                continue
            times = self._times[receiver]
            if times[number] == 0:
                self._open -= 1
                self._latencies.append(now - due)
            if times[number] < 255:
                times[number] += 1
        self._last = now
        self._look()

    def forgive(self, events: int) -> None:
        """So many of the events were not accepted, and need not come."""
        self._open -= events * len(self._times)
        self._look()

    def _look(self) -> None:
        if self._open <= 0 and not self.complete.done():
            self.complete.set_result(None)

    def report(self) -> Answer:
        if self._losing:
            for times in self._times:
                times[:: self._losing] = bytes(len(times[:: self._losing]))
        return {
            "came": [f"{numbers_of(times):x}" for times in self._times],
            "again": sum(max(0, count - 1) for times in self._times for count in times),
            "strange": self._strange,
            "first": self._first,
            "last": self._last,
            "p50": percentile(self._latencies, 50) if self._latencies else None,
            "p99": percentile(self._latencies, 99) if self._latencies else None,
        }


class Receiver:
    def __init__(self) -> None:
        self._round: Round | None = None

    async def listen(self) -> Answer:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Inlet(self), "127.0.0.1", 0, backlog=1024)
        return {"port": self._server.sockets[0].getsockname()[1]}

    async def expect(self, *, receivers: int, events: int, losing: int = 0) -> Answer:
        """From now on count *events* at each. *losing*: forget every so manyth, as a test of the ledger."""
        self._round = Round(receivers=receivers, events=events, losing=losing)
        return {}

    async def report(self, *, refused: int, patience: float) -> Answer:
        """What has come, once all but those that were *refused* have, or *patience* is at its end."""
        assert self._round is not None, "nothing is expected"  # noqa: S101 - whoever asks has said so before
        self._round.forgive(refused)
        await asyncio.wait([self._round.complete], timeout=patience)
        return self._round.report()

    def take(self, path: bytes, body: bytes) -> None:
        if self._round is not None:
            self._round.take(path, body)


class Inlet(asyncio.Protocol):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._messages = Messages()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none, but does what one does

    def data_received(self, data: bytes) -> None:
        for head, body in self._messages.feed(data):
            self._receiver.take(head.split(b" ", 2)[1], body)
            self._transport.write(_ANSWER)


if __name__ == "__main__":
    receiver = Receiver()
    answer_calls({"listen": receiver.listen, "expect": receiver.expect, "report": receiver.report})
