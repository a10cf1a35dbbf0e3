"""The seam between history and live, over real connections: readers of both kinds that stall, break and come back."""

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from websockets.exceptions import ConnectionClosed

from gateway.events import Cursor
from gateway.filters import Candidate, Filter, Matcher
from tests.builders import a_draft
from tests.http.served import PATH as SSE
from tests.http.served import Connection, Served, serving
from tests.http.sockets import PATH as WEBSOCKET
from tests.http.sockets import listening
from tests.until import until
from tests.whatwg import interpret

FILTERS: list[dict[str, Any]] = [
    {},
    {"types": ["document.*"]},
    {"types": ["custom"], "library_ids": ["a", "b"]},
    {"library_ids": ["c"]},
    {"expression": "event.data.n % 7 == 0"},
]
PUBLISHERS, BATCHES, READERS = 3, 40, 5
RING_BYTES = 300_000
"""Much less than is published: who stalls falls out of it, and has to go on from the log."""


def at(place: int) -> str:
    return f"k3v9-{place}"


class Restless:
    """A reader that goes on where it was, whatever happened to its connection."""

    def __init__(self, served: Served, rand: random.Random, secret: str, over: asyncio.Event) -> None:
        self.words = rand.choice(FILTERS)
        self.got: list[int] = []
        self.comings = 0
        self._served = served
        self._rand = rand
        self._secret = secret
        self._place = 0
        self._over = over
        names = {"types": "type", "library_ids": "library_id", "expression": "filter"}
        self._query = [(names[name], value) for name, value in self.words.items()]

    def _target(self, path: str, **more: str) -> str:
        return f"{path}?{urlencode([*self._query, *more.items()], doseq=True)}"

    def _note(self, place: str, *, is_event: bool) -> None:
        self._place = int(place.split("-")[1])
        if is_event:
            self.got.append(self._place)

    @property
    def is_done(self) -> bool:
        return self._over.is_set() and self._place == self._served.tail.cursor

    async def read(self) -> None:
        while not self.is_done:
            self.comings += 1
            await self._one_connection()

    async def _one_connection(self) -> None:
        raise NotImplementedError

    async def _stall(self) -> None:
        """Now and then, until a good deal has been published."""
        if self._rand.random() < 0.05:
            enough = self._served.tail.cursor + self._rand.randrange(600)
            await until(lambda: self._over.is_set() or self._served.tail.cursor >= enough)

    def _breaks(self) -> bool:
        return not self._over.is_set() and self._rand.random() < 0.03


class OverSse(Restless):
    async def _one_connection(self) -> None:
        place = {"last-event-id": at(self._place)}
        async with Connection(self._served.port, self._target(SSE), secret=self._secret, headers=place) as connection:
            await connection.head()
            while await connection.read_piece():
                await self._stall()
                if self._breaks():
                    connection.writer.transport.abort()
                    break
                if self._over.is_set() and f"id: {at(self._served.tail.cursor)}\n".encode() in connection.body[-9_000:]:
                    break
        source = interpret(connection.body)  # of a frame that was cut nothing counts
        for event in source.events:
            self._note(event.last_event_id, is_event=True)
        if source.last_event_id:
            self._note(source.last_event_id, is_event=False)


class OverWebSocket(Restless):
    async def _one_connection(self) -> None:
        path = self._target(WEBSOCKET, after=at(self._place))
        async with listening(self._served, path, secret=self._secret) as reader:
            try:
                while not self.is_done:
                    try:
                        async with asyncio.timeout(0.2):
                            message = await reader.read()
                    except TimeoutError:
                        continue  # it had read everything before it was over, and nobody tells it so
                    self._note(message["cursor"], is_event=message["type"] == "event")
                    await self._stall()
                    if self._breaks():
                        reader.connection.transport.abort()
                        break
            except ConnectionClosed:
                pass  # too slow, perhaps: it comes back


async def publish_at_random(served: Served, rand: random.Random) -> None:
    for _ in range(BATCHES):
        drafts = [
            a_draft(
                type=rand.choice(["document.added", "custom"]),
                library_id=rand.choice("abc"),
                data=json.dumps({"n": rand.randrange(100), "x": "x" * rand.choice([0, 10, 300, 5_000])}).encode(),
            )
            for _ in range(rand.randrange(1, 30))
        ]
        await served.log.append([drafts])
        for _ in range(rand.randrange(20)):
            await asyncio.sleep(0)


async def keep(what: Callable[[], None]) -> None:
    """Do it again and again, with turns for others between."""
    while True:
        what()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_readers_do_each_ends_with_exactly_its_part_of_the_log(seed: int) -> None:
    rand = random.Random(seed)
    served = Served()
    served.streams.hub._ring_bytes = RING_BYTES
    over = asyncio.Event()
    async with serving(served):
        secret = await served.key()
        kinds = (OverSse, OverWebSocket)
        readers = [kind(served, rand, secret, over) for kind in kinds for _ in range(READERS)]
        beating = asyncio.create_task(keep(served.beat))
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for reader in readers:
                group.create_task(reader.read())
            await asyncio.gather(*(publish_at_random(served, rand) for _ in range(PUBLISHERS)))
            head = (await served.log.position()).head
            await until(lambda: served.tail.cursor == head)
            over.set()
        beating.cancel()
        events = (await served.log.read(Cursor(0), limit=10**6, max_bytes=10**9)).events
    assert sum(reader.comings for reader in readers) > 2 * len(readers), "they did break and come back"
    for reader in readers:
        matcher = Matcher(Filter.parse(**reader.words))
        assert reader.got == [event.cursor for event in events if matcher.matches(Candidate(event))]
