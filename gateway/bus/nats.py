"""Pages over NATS: whoever commits sends what it has appended, and the others need not read it.

announce(page) ─┬─▶ listeners here
                └─▶ subject of the log's epoch ─▶ the other processes ─▶ their listeners
                    larger than the server takes: a hint, and they read the log

Whoever may publish there is believed: the server, or the account, has to be the gateway's own.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Self

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from gateway.bus.memory import MemoryBus
from gateway.events import Cursor, EventType, LoggedEvent, Page
from gateway.ports.log import EventLog
from gateway.times import from_micros, to_micros

SUBJECT = "arrw.gateway.log"
RECONNECT_SECONDS = 1
WAITING_BYTES = 16 * 2**20
"""Pages that wait to be sent. Beyond this they are let go, and the others look."""

_log = structlog.get_logger(__name__)


class _Event(msgspec.Struct, array_like=True):
    cursor: int
    id: str
    type: str
    library_id: str
    timestamp: int
    accepted_at: int
    data: bytes
    traceparent: str | None
    audience: list[str] | None


class _Message(msgspec.Struct, array_like=True):
    after: int
    last: int
    events: list[_Event] | None
    """None: too many to be sent; only that they are there."""


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(_Message)


class NatsBus:
    """Over a connection that is made anew whenever it breaks. Meanwhile listeners look by themselves."""

    def __init__(self, url: str, log: EventLog) -> None:
        self._url = url
        self._event_log = log
        self._here = MemoryBus()
        self._waiting: deque[Page] = deque()
        self._waiting_bytes = 0
        self._news = asyncio.Event()
        self.listening = asyncio.Event()
        """Set once others are heard."""

    async def __aenter__(self) -> Self:
        epoch = (await self._event_log.position()).epoch
        self._task = asyncio.create_task(self._run(f"{SUBJECT}.{epoch}"), name="nats-bus")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    def announce(self, page: Page) -> None:
        self._here.announce(page)
        self._waiting.append(page)
        self._waiting_bytes += _size(page)
        while self._waiting_bytes > WAITING_BYTES:
            self._waiting_bytes -= _size(self._waiting.popleft())
        self._news.set()

    def listen(self, listener: Callable[[Page | None], None]) -> Callable[[], None]:
        return self._here.listen(listener)

    async def _run(self, subject: str) -> None:
        client = Client()
        try:
            await client.connect(
                self._url,
                name="arrw-gateway",
                no_echo=True,  # what was said here has been heard here
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_SECONDS,
                error_cb=_failed,
                reconnected_cb=self._reconnected,
            )
            await client.subscribe(subject, cb=self._heard)
            await client.flush()
            self.listening.set()
            self._here.tell(None)  # what was said before nobody heard here
            while True:
                await self._news.wait()
                self._news.clear()
                while self._waiting:
                    page = self._waiting.popleft()
                    self._waiting_bytes -= _size(page)
                    await _send(client, subject, page)
        finally:
            await client.close()

    async def _heard(self, message: Msg) -> None:
        try:
            self._here.tell(_page_of(_decoder.decode(message.data)))
        except (msgspec.MsgspecError, ValueError) as error:
            _log.warning("bus.not_understood", error=str(error))
            self._here.tell(None)

    async def _reconnected(self) -> None:
        self._here.tell(None)


async def _send(client: Client, subject: str, page: Page) -> None:
    whole = _encode(_Message(page.after, page.last, [_event(event) for event in page.events]))
    fits = len(whole) <= client.max_payload
    try:
        await client.publish(subject, whole if fits else _encode(_Message(page.after, page.last, None)))
    except NatsError as error:  # the others look by themselves
        _log.warning("bus.not_sent", error=repr(error))


async def _failed(error: Exception) -> None:
    _log.warning("bus.away", error=repr(error))


def _event(event: LoggedEvent) -> _Event:
    return _Event(
        cursor=event.cursor,
        id=event.id,
        type=str(event.type),
        library_id=event.library_id,
        timestamp=to_micros(event.timestamp),
        accepted_at=to_micros(event.accepted_at),
        data=event.data,
        traceparent=event.traceparent,
        audience=None if event.audience is None else sorted(event.audience),
    )


def _page_of(message: _Message) -> Page | None:
    """Raises:
    ValueError: it is no stretch of the log.
    """
    if message.events is None:
        return None
    if [event.cursor for event in message.events] != list(range(message.after + 1, message.last + 1)):
        raise ValueError("not a stretch of the log")
    return Page(after=Cursor(message.after), events=tuple(map(_logged, message.events)))


def _logged(event: _Event) -> LoggedEvent:
    return LoggedEvent(
        cursor=Cursor(event.cursor),
        id=event.id,
        type=EventType(event.type),
        library_id=event.library_id,
        timestamp=from_micros(event.timestamp),
        accepted_at=from_micros(event.accepted_at),
        data=event.data,
        traceparent=event.traceparent,
        audience=None if event.audience is None else frozenset(event.audience),
    )


def _size(page: Page) -> int:
    return sum(len(event.data) for event in page.events)
