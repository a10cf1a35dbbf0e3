"""The httpx transport that connects to vetted addresses only, over aiohttp's connection pool.

httpx's own pool posts a tenth as fast at 64 in flight. What stands between a URL and a socket is `socket_factory`: it
sees every address, literal or resolved, right before it is connected to, so that a name that changes its mind between
a check and the connection (DNS rebinding) gains nothing.
"""

import math
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Self

import aiohttp
import certifi
import httpx
import yarl
from aiohttp.abc import AbstractResolver, AbstractStreamWriter
from aiohttp.client import ClientTimeout
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import AddrInfoType, Connection
from aiohttp.tracing import Trace

from webhooks.destinations import Guard, literal_address
from webhooks.faults import AddressForbidden, TooLate, translate
from webhooks.ownership import seconds_awake_or_asleep
from webhooks.resolver import DeadlineResolver

NOT_AFTER = "not_after"
"""In a request's extensions: until when, in `seconds_awake_or_asleep`, it may go out. A process that is stopped on the
way to the socket goes on where it was, and by then another one may have its lane."""

LONGEST_BODY = 64 * 2**10
"""Bytes of an answer that are read; then its connection is closed."""

PIECE = 16 * 2**10
"""Bytes of a body that are written at once: what the system has no room for goes out when it has, however late."""

STALE_SECONDS = 1.0
"""An idle connection that was closed at the other end shows it within a round trip. What breaks later than this had
taken the request up."""

_NO_TIMEOUT = ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
_SKIPPED_HEADERS = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")
_STALE = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError)


@dataclass(slots=True)
class _Trip:
    """What is learnt on the way to the socket of one request."""

    started: float
    sockets: int = 0
    forbidden: int = 0
    connected: float | None = None

    @property
    def was_stale(self) -> bool:
        """Whether it went out on a connection that the receiver had closed, as far as can be told."""
        is_reused = self.connected is not None and self.sockets == 0
        return is_reused and time.perf_counter() - (self.connected or 0) < STALE_SECONDS


_trip: ContextVar[_Trip] = ContextVar("_trip")
"""Of the request that this task, or one that it started to race for a connection, is sending."""


class VettingTransport(httpx.AsyncBaseTransport):
    """Sends one request as it is: no redirects, cookies, decompression, proxies, or retries of a fresh connection.

    It sets no deadline: whoever calls it does. Answers carry `connect_seconds` (None on a reused connection) and
    `first_byte_seconds` in their extensions, and are at most 64 KiB long.

    Raises (when handling a request): httpx.TransportError, as `webhooks.faults` draws it.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        ssl_context: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
        keepalive_seconds: float = 15.0,
    ) -> None:
        self._guard = guard
        self._ssl_context = ssl_context or _trusting_the_usual()
        self._resolver = resolver
        self._keepalive_seconds = keepalive_seconds
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        session = self._session or self._open()
        url = _as_yarl(str(request.url))
        headers = [(name.decode("ascii"), value.decode()) for name, value in request.headers.raw]
        body = _InTime(await request.aread(), request.extensions.get(NOT_AFTER, math.inf))
        while True:
            trip = _Trip(started=time.perf_counter())
            _trip.set(trip)
            try:
                answer = await session.request(
                    request.method, url, data=body, headers=headers, allow_redirects=False, timeout=_NO_TIMEOUT
                )
            except (aiohttp.ClientError, OSError) as error:
                if trip.was_stale and isinstance(error, _STALE):
                    # The receiver closed an idle connection at the moment it was used again. There may be more of them
                    # in the pool, each is gone after this, and a fresh one is not tried twice. Should the receiver
                    # have taken the request all the same, it gets it again with the same `webhook-id`.
                    continue
                if trip.forbidden and not trip.sockets:
                    raise AddressForbidden("not an address of the public internet", request=request) from error
                raise translate(error, request) from error
            return _as_httpx(answer, trip, request)

    def _open(self) -> aiohttp.ClientSession:
        connector = _Connector(
            limit=0,  # the lanes limit themselves; a limit here would let those that hang starve the others
            ssl=self._ssl_context,
            resolver=self._resolver or DeadlineResolver(),
            keepalive_timeout=self._keepalive_seconds,
            socket_factory=self._socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=_NO_TIMEOUT,
            skip_auto_headers=_SKIPPED_HEADERS,
        )
        return self._session

    def _socket(self, info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        trip = _trip.get()
        literal = literal_address(str(address[0]))
        if literal is None or not self._guard.permits(literal):
            trip.forbidden += 1
            raise PermissionError("forbidden address")
        trip.sockets += 1
        return socket.socket(family=family, type=kind, proto=protocol)


class _Connector(aiohttp.TCPConnector):
    """Tells the request's trip when it has its connection."""

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        _trip.get().connected = time.perf_counter()
        if connection.transport is not None:
            # Whoever waits for it to be drained waits until all of it has gone; over TLS 0 would mean never.
            is_plain = connection.transport.get_extra_info("sslcontext") is None
            connection.transport.set_write_buffer_limits(high=0 if is_plain else 1)
        return connection

    async def close(self, *, abort_ssl: bool = False) -> None:
        await super().close(abort_ssl=abort_ssl)
        await self._resolver.close()


class _InTime(aiohttp.BytesPayload):
    """A body of which nothing goes out once its time has passed.

    With its first piece go the headers. What stands between a look and its system call are some microseconds.
    """

    def __init__(self, value: bytes, not_after: float) -> None:
        super().__init__(value)
        self._whole = memoryview(value)
        self._not_after = not_after

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        whole = self._whole[:content_length]
        try:
            for start in range(0, max(1, len(whole)), PIECE):
                await writer.drain()
                if seconds_awake_or_asleep() >= self._not_after:
                    raise TooLate
                await writer.write(whole[start : start + PIECE])
        except aiohttp.ClientConnectionError:
            return  # who waits for the answer hears that it is lost, and why


class _Body(httpx.AsyncByteStream):
    """The answer's bytes as they came, up to `LONGEST_BODY`."""

    def __init__(self, answer: aiohttp.ClientResponse, request: httpx.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = LONGEST_BODY
        try:
            while left and (chunk := await self._answer.content.readany()):
                yield chunk[:left]
                left -= len(chunk[:left])
        except (aiohttp.ClientError, OSError) as error:
            raise translate(error, self._request) from error

    async def aclose(self) -> None:
        # A connection whose answer was read to its end has gone back to the pool already; any other is of no more use.
        self._answer.close()


@lru_cache(10_000)
def _as_yarl(url: str) -> yarl.URL:
    """It is sent as httpx has written it, byte for byte."""
    return yarl.URL(url, encoded=True)


def _as_httpx(answer: aiohttp.ClientResponse, trip: _Trip, request: httpx.Request) -> httpx.Response:
    is_fresh = trip.connected is not None and trip.sockets > 0
    return httpx.Response(
        answer.status,
        headers=answer.raw_headers,
        stream=_Body(answer, request),
        request=request,
        extensions={
            "connect_seconds": trip.connected - trip.started if is_fresh and trip.connected else None,
            "first_byte_seconds": time.perf_counter() - trip.started,
        },
    )


def _trusting_the_usual() -> ssl.SSLContext:
    """The system's authorities, and Mozilla's for systems that come without (slim containers)."""
    context = ssl.create_default_context()
    context.load_verify_locations(cafile=certifi.where())
    return context
