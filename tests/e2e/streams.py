"""A reader of event streams that does what a browser's EventSource does: parse, remember its place, come back."""

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import httpx

_LINE_END = re.compile(rb"\r\n|\n|\r(?!$)")
"""A carriage return at the very end may be half of a pair: what follows it has to be seen first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What an EventSource would dispatch. `type` is `message` when the frame names none."""

    last_event_id: str
    type: str
    data: str


class Parser:
    """The algorithm of HTML's section 9.2.6, fed bytes as they come. A frame cut short counts as nothing."""

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self.comments = 0
        self._rest = b""
        self._id = last_event_id
        self._type = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> Iterator[Message]:
        *lines, self._rest = _LINE_END.split(self._rest + piece)
        for line in lines:
            if not line:
                yield from self._dispatch()
            else:
                self._field(line.decode())

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "":
                self.comments += 1
            case "id" if "\0" not in value:
                self._id = value
            case "event":
                self._type = value
            case "data":
                self._data.append(value)
            case "retry" if value.isdigit():
                self.retry_ms = int(value)

    def _dispatch(self) -> Iterator[Message]:
        self.last_event_id = self._id
        data, type_, self._data, self._type = self._data, self._type, [], ""
        if data:
            yield Message(last_event_id=self._id, type=type_ or "message", data="\n".join(data))


class StreamReader:
    """Reads one stream, over as many connections as it takes, until it is closed: `async with StreamReader(…)`."""

    def __init__(self, client: httpx.AsyncClient, path: str, **query: str) -> None:
        self._client = client
        self._path = path
        self._query = query
        self.messages: list[Message] = []
        self.connections = 0
        self.last_event_id = ""
        self.opened = asyncio.Event()
        """Set once it has a place in the log: from here on it misses nothing, however often it is cut off."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(message.data) for message in self.messages]

    async def _run(self) -> None:
        while True:
            with suppress(httpx.TransportError):
                await self._read_one_connection()
            await asyncio.sleep(0.05)  # a browser's `retry`, shortened

    async def _read_one_connection(self) -> None:
        parser = Parser(self.last_event_id)
        headers = {"accept": "text/event-stream"}
        if self.last_event_id:
            headers["last-event-id"] = self.last_event_id
        async with self._client.stream(
            "GET", self._path, params=self._query, headers=headers, timeout=httpx.Timeout(10, read=20)
        ) as answer:
            assert answer.status_code == 200, f"{answer.status_code} is final for a browser"
            self.connections += 1
            async for piece in answer.aiter_raw():
                self.messages.extend(parser.feed(piece))
                self.last_event_id = parser.last_event_id
                if self.last_event_id:
                    self.opened.set()


class RestlessReader(StreamReader):
    """Stays nowhere for longer than *stay_seconds*."""

    def __init__(self, client: httpx.AsyncClient, path: str, *, stay_seconds: float) -> None:
        super().__init__(client, path)
        self._stay_seconds = stay_seconds

    async def _read_one_connection(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._stay_seconds):
                await super()._read_one_connection()
