"""One attempt: a signed POST, its answer, or in words why there is none."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import httpx
import msgspec

from webhooks.deliveries import Attempt, Delivery, Failure
from webhooks.endpoints import Endpoint, Payload
from webhooks.errors import BadDestination
from webhooks.faults import AddressForbidden
from webhooks.ownership import seconds_awake_or_asleep
from webhooks.signing import sign
from webhooks.transport import NOT_AFTER

KEPT_BODY = 4 * 2**10
"""Bytes of an answer that are kept."""
KEPT_HEADERS = 8 * 2**10
"""Characters of an answer's headers that are kept."""
LONGEST_BODY = 64 * 2**10
MASK = "***"
SHORTEST_SECRET = 8
"""Characters of a header's value that is looked for in answers: shorter ones stand in ordinary words too."""

_JSON = "application/json"
_CLOUDEVENTS = "application/cloudevents+json"
_SECRET_ANSWERS = {"set-cookie", "set-cookie2", "authorization", "proxy-authorization", "www-authenticate"}


class _EventData(msgspec.Struct):
    data: msgspec.Raw


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What all requests to one endpoint have in common."""

    endpoint: Endpoint
    url: httpx.URL
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    shown: Mapping[str, str]
    secrets: tuple[bytes, ...] = field(repr=False)
    """What its headers hold, longest first: receivers that are being debugged answer with what they were sent."""

    def masked(self, answer: bytes) -> bytes:
        for secret in self.secrets:
            answer = answer.replace(secret, MASK.encode())
        return answer


@dataclass(slots=True)
class _Answer:
    """What has come of the answer so far: the deadline can fall in the middle of it."""

    response: httpx.Response | None = None
    body: bytearray = field(default_factory=bytearray)


class Sender:
    """Makes attempts through *transport*; never raises for anything a receiver does.

    Args:
        transport: connects; `VettingTransport` in earnest.
        user_agent: `arrw-gateway/<version>`.
        clock: answers the present moment, in UTC.
        stopwatch: answers seconds, for durations.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        *,
        user_agent: str,
        clock: Callable[[], datetime],
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._transport = transport
        self._user_agent = user_agent
        self._clock = clock
        self._stopwatch = stopwatch
        self._prepared: dict[str, _Prepared] = {}

    async def send(self, delivery: Delivery, endpoint: Endpoint) -> Attempt:
        """One attempt to give *delivery* to *endpoint*, in at most its `timeout_seconds`, whatever the receiver drips.

        The answer's status decides, once it is there: a body that breaks off or never ends takes nothing from it.
        """
        prepared = self._prepare(endpoint)
        started_at = self._clock()
        started = self._stopwatch()
        request, shown = self._request(prepared, delivery, started_at)
        answer = _Answer()
        error: str | None = None
        failure: Failure | None = None
        try:
            async with asyncio.timeout(endpoint.timeout_seconds):
                await self._exchange(request, answer)
        except TimeoutError:
            error, failure = f"timed out after {endpoint.timeout_seconds:g} s", Failure.TIMEOUT
        except (httpx.HTTPError, httpx.InvalidURL, BadDestination) as fault:
            error, failure = str(fault) or type(fault).__name__, _failure(fault)
        duration = timedelta(seconds=self._stopwatch() - started)
        number = delivery.attempt_count + 1
        if (response := answer.response) is None:
            return Attempt(
                number=number,
                started_at=started_at,
                duration=duration,
                error=error,
                failure=failure,
                request_headers=shown,
            )
        return Attempt(
            number=number,
            started_at=started_at,
            duration=duration,
            connect=_seconds(response, "connect_seconds"),
            first_byte=_seconds(response, "first_byte_seconds"),
            status_code=response.status_code,
            retry_after=response.headers.get("retry-after") if response.status_code in {429, 503} else None,
            request_headers=shown,
            response_headers=_kept_headers(response, prepared.masked),
            # Masked before it is cut, or the cut could leave half of a secret.
            response_body=prepared.masked(bytes(answer.body))[:KEPT_BODY],
        )

    async def _exchange(self, request: httpx.Request, answer: _Answer) -> None:
        answer.response = response = await self._transport.handle_async_request(request)
        try:
            if isinstance(response.stream, httpx.AsyncByteStream):
                async for chunk in response.stream:
                    answer.body += chunk
                    if len(answer.body) >= LONGEST_BODY:
                        break
        finally:
            await response.aclose()

    def _request(
        self, prepared: _Prepared, delivery: Delivery, now: datetime
    ) -> tuple[httpx.Request, Mapping[str, str]]:
        """The request, and its headers as they may be shown."""
        endpoint = prepared.endpoint
        body = delivery.body if endpoint.payload is Payload.STANDARD else cloudevent(delivery)
        timestamp = math.floor(now.timestamp())
        signature = sign(endpoint.secrets, delivery.event_id, timestamp, body, now)
        # All of them are given, or httpx would work each request out anew: that is a tenth of an attempt.
        headers = [
            (b"host", prepared.url.netloc),
            (b"content-length", b"%d" % len(body)),
            (b"webhook-id", delivery.event_id.encode()),
            (b"webhook-timestamp", str(timestamp).encode()),
            (b"webhook-signature", signature.encode()),
            *prepared.headers,
        ]
        shown = {
            "webhook-id": delivery.event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join([f"{one.partition(',')[0]},{MASK}" for one in signature.split()]),
            **prepared.shown,
        }
        if delivery.traceparent is not None:
            headers.append((b"traceparent", delivery.traceparent.encode()))
            shown["traceparent"] = delivery.traceparent
        not_after = {NOT_AFTER: seconds_awake_or_asleep() + endpoint.timeout_seconds}
        stream = httpx.ByteStream(body)
        return httpx.Request("POST", prepared.url, headers=headers, stream=stream, extensions=not_after), shown

    def _prepare(self, endpoint: Endpoint) -> _Prepared:
        prepared = self._prepared.get(endpoint.id)
        if prepared is not None and prepared.endpoint is endpoint:
            return prepared
        if len(self._prepared) >= 10_000:
            self._prepared.clear()
        content_type = _CLOUDEVENTS if endpoint.payload is Payload.CLOUDEVENTS else _JSON
        own = {"content-type": content_type, "user-agent": self._user_agent, "accept": "*/*"}
        custom = {name.lower(): value for name, value in endpoint.headers.items()}
        prepared = _Prepared(
            endpoint,
            httpx.URL(endpoint.url),
            tuple((name.encode(), value.encode()) for name, value in (own | custom).items()),
            own | dict.fromkeys(custom, MASK),
            _secrets_among(custom.values()),
        )
        self._prepared[endpoint.id] = prepared
        return prepared


def cloudevent(delivery: Delivery) -> bytes:
    """The event as structured CloudEvents 1.0 in JSON; `data` is the event's own, byte for byte."""
    data = msgspec.json.decode(delivery.body, type=_EventData).data
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": delivery.event_id,
            "source": f"/libraries/{delivery.library_id}",
            "type": delivery.event_type,
            "time": delivery.event_time,
            "datacontenttype": _JSON,
            "data": data,
        }
    )


def _failure(fault: Exception) -> Failure:
    match fault:
        case AddressForbidden() | BadDestination():
            return Failure.FORBIDDEN
        case httpx.TimeoutException():
            return Failure.TIMEOUT
        case httpx.ProtocolError():
            return Failure.PROTOCOL
        case _:
            return Failure.UNREACHABLE


def _seconds(response: httpx.Response, name: str) -> timedelta | None:
    seconds = response.extensions.get(name)
    return timedelta(seconds=seconds) if isinstance(seconds, float) else None


def _secrets_among(values: Iterable[str]) -> tuple[bytes, ...]:
    """*values*, and what follows the scheme in those like `Bearer …`; longest first, so that none hides in another."""
    parts = {part for value in values for part in (value, value.partition(" ")[2].strip())}
    found = [part.encode() for part in parts if len(part) >= SHORTEST_SECRET]
    return tuple(sorted(found, key=lambda part: (-len(part), part)))


def _kept_headers(response: httpx.Response, masked: Callable[[bytes], bytes]) -> dict[str, str]:
    """The answer's headers, as text that any database and JSON can hold; repeated ones are joined."""
    kept: dict[str, str] = {}
    room = KEPT_HEADERS
    for raw_name, raw_value in response.headers.raw:
        name = raw_name.decode("ascii", "replace").lower()
        value = (
            MASK
            if name in _SECRET_ANSWERS
            else masked(raw_value).decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
        )
        room -= len(name) + len(value)
        if room < 0:
            break
        kept[name] = f"{kept[name]}, {value}" if name in kept else value
    return kept
