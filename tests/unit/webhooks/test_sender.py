"""One attempt, over a transport that a test scripts: what is sent, and what is kept of the answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import httpx
import msgspec
import pytest
import respx
from cloudevents.v1.http import from_http
from msgspec.structs import replace

import webhooks
from tests.fakes.clock import START
from tests.fakes.deliveries import a_delivery, an_endpoint
from webhooks.deliveries import Attempt, Failure
from webhooks.endpoints import Payload
from webhooks.faults import AddressForbidden
from webhooks.ownership import seconds_awake_or_asleep
from webhooks.sender import LONGEST_BODY, Sender
from webhooks.signing import Secret, Signature, new_secret
from webhooks.transport import NOT_AFTER

SECRET = new_secret()
DELIVERY = a_delivery(7, library_id="lib:1", traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
ENDPOINT = an_endpoint(secrets=(SECRET,), headers={"X-Token": "hunter2", "authorization": "Bearer swordfish"})


def a_sender(answer: Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]) -> Sender:
    return a_sender_over(httpx.MockTransport(answer))  # type: ignore[arg-type]  # it takes both kinds of function


def a_sender_over(transport: httpx.AsyncBaseTransport) -> Sender:
    ticks = iter(range(100))
    return Sender(transport, user_agent="arrw-gateway/1.2.3", clock=lambda: START, stopwatch=lambda: next(ticks) / 8)


class Dripping(httpx.AsyncByteStream):
    """A body that never ends, until it is closed."""

    def __init__(self, chunk: bytes, *, pause: asyncio.Event | None = None, fault: Exception | None = None) -> None:
        self._chunk = chunk
        self._pause = pause
        self._fault = fault
        self.chunks = 0
        self.is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.chunks += 1
            yield self._chunk
            if self._fault is not None:
                raise self._fault
            if self._pause is not None:
                await self._pause.wait()

    async def aclose(self) -> None:
        self.is_closed = True


async def test_a_request_may_go_out_only_while_its_attempt_lasts() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(204)

    before = seconds_awake_or_asleep()
    await a_sender(answer).send(DELIVERY, ENDPOINT)
    [request] = asked
    assert before <= request.extensions[NOT_AFTER] - ENDPOINT.timeout_seconds <= seconds_awake_or_asleep()


async def test_a_request_is_what_the_contract_says() -> None:
    router = respx.MockRouter()
    route = router.post("https://example.com/hooks").respond(204)
    sender = a_sender_over(httpx.MockTransport(router.async_handler))
    attempt = await sender.send(DELIVERY, ENDPOINT)
    request: httpx.Request = route.calls.last.request
    assert request.content == DELIVERY.body
    assert dict(request.headers) == {
        "webhook-id": "evt_7",
        "webhook-timestamp": str(int(START.timestamp())),
        "webhook-signature": SECRET.sign(f"evt_7.{int(START.timestamp())}.".encode() + DELIVERY.body),
        "content-type": "application/json",
        "user-agent": "arrw-gateway/1.2.3",
        "accept": "*/*",
        "traceparent": DELIVERY.traceparent,
        "x-token": "hunter2",
        "authorization": "Bearer swordfish",
        "host": "example.com",
        "content-length": str(len(DELIVERY.body)),
    }
    assert webhooks.Webhook(SECRET.text, clock=lambda: START).verify(request.content, request.headers)
    assert (attempt.number, attempt.started_at, attempt.duration) == (1, START, timedelta(seconds=1 / 8))
    assert (attempt.status_code, attempt.error, attempt.failure) == (204, None, None)


async def test_no_secret_is_kept_with_the_attempt() -> None:
    answer = httpx.Response(200, headers=[("set-cookie", "session=swordfish"), ("x-a", "1"), ("X-A", "2")])
    old = Secret(key=b"o" * 32, expires_at=START + timedelta(hours=1))
    sender = a_sender(lambda _: answer)
    attempt = await sender.send(DELIVERY, replace(ENDPOINT, secrets=(SECRET, old)))
    assert attempt.request_headers["webhook-signature"] == "v1,*** v1,***"
    assert attempt.request_headers["x-token"] == attempt.request_headers["authorization"] == "***"
    assert attempt.response_headers == {"set-cookie": "***", "x-a": "1, 2"}
    assert "swordfish" not in repr(attempt)
    assert "hunter2" not in repr(attempt) + repr(ENDPOINT) + repr(sender.__dict__)


async def test_a_receiver_that_answers_with_what_it_was_sent_tells_no_header_of_its_owner() -> None:
    endpoint = replace(ENDPOINT, headers={"x-token": "hunter2!", "authorization": "Bearer swordfish", "x-env": "prod"})
    # The cut at 4 KiB falls into a secret.
    said = b"x" * 4_090 + b"swordfish Bearer swordfish hunter2! prod"
    answer = httpx.Response(500, headers={"x-seen": "token=swordfish"}, content=said)
    attempt = await a_sender(lambda _: answer).send(DELIVERY, endpoint)
    assert attempt.response_headers["x-seen"] == "token=***"
    assert attempt.response_body == b"x" * 4_090 + b"*** **"
    short = await a_sender(lambda _: httpx.Response(500, content=said[4_090:])).send(DELIVERY, endpoint)
    assert short.response_body == b"*** *** *** prod"


async def test_the_number_goes_on_over_all_attempts() -> None:
    attempt = await a_sender(lambda _: httpx.Response(500)).send(replace(DELIVERY, attempt_count=11), ENDPOINT)
    assert (attempt.number, attempt.status_code) == (12, 500)


async def test_v1a_is_signed_with_the_private_key() -> None:
    secret = new_secret(Signature.V1A)
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(204)

    await a_sender(answer).send(DELIVERY, replace(ENDPOINT, secrets=(secret,)))
    assert secret.public_key is not None
    assert webhooks.Webhook(secret.public_key, clock=lambda: START).verify(requests[0].content, requests[0].headers)


async def test_cloudevents_are_structured_and_signed_as_they_are_sent() -> None:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(204)

    body = b'{"id":"evt_7","type":"document.added","library_id":"lib:1","data":{"n":12345678901234567890123,"f":1.00}}'
    await a_sender(answer).send(replace(DELIVERY, body=body), replace(ENDPOINT, payload=Payload.CLOUDEVENTS))
    (request,) = requests
    assert request.headers["content-type"] == "application/cloudevents+json"
    webhooks.Webhook(SECRET, clock=lambda: START).verify(request.content, request.headers)
    event = from_http(dict(request.headers), request.content)
    assert (event["specversion"], event["id"], event["type"]) == ("1.0", "evt_7", "document.added")
    assert (event["source"], event["time"]) == ("/libraries/lib:1", "2025-10-27T06:00:00Z")
    assert event["datacontenttype"] == "application/json"
    assert b'"data":{"n":12345678901234567890123,"f":1.00}' in request.content
    assert msgspec.json.decode(request.content)["data"]["f"] == 1.0


@pytest.mark.parametrize(
    ("fault", "error", "failure"),
    [
        (httpx.ConnectError("connection refused"), "connection refused", Failure.UNREACHABLE),
        (httpx.ReadError("connection reset"), "connection reset", Failure.UNREACHABLE),
        (httpx.ConnectTimeout("name server did not answer"), "name server did not answer", Failure.TIMEOUT),
        (httpx.RemoteProtocolError("the answer is not HTTP"), "the answer is not HTTP", Failure.PROTOCOL),
        (AddressForbidden("not public"), "not public", Failure.FORBIDDEN),
        (httpx.ReadError(""), "ReadError", Failure.UNREACHABLE),
    ],
)
async def test_a_request_without_an_answer_says_why(fault: Exception, error: str, failure: Failure) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise fault

    attempt = await a_sender(answer).send(DELIVERY, ENDPOINT)
    assert (attempt.status_code, attempt.error, attempt.failure) == (None, error, failure)
    assert attempt.request_headers["webhook-id"] == "evt_7"


async def attempt_with(response: httpx.Response, **changes: object) -> Attempt:
    endpoint = replace(ENDPOINT, timeout_seconds=0.02, **changes)  # tests name real fields
    return await a_sender(lambda _: response).send(DELIVERY, endpoint)


async def test_a_receiver_that_never_answers_is_left_at_the_deadline() -> None:
    async def answer(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    attempt = await a_sender(answer).send(DELIVERY, replace(ENDPOINT, timeout_seconds=0.01))
    assert (attempt.error, attempt.failure) == ("timed out after 0.01 s", Failure.TIMEOUT)


async def test_a_body_that_drips_is_left_at_the_deadline_and_its_status_counts() -> None:
    body = Dripping(b"x", pause=asyncio.Event())
    attempt = await attempt_with(httpx.Response(201, stream=body))
    assert (attempt.status_code, attempt.error, attempt.failure) == (201, None, None)
    assert attempt.response_body == b"x"
    assert body.is_closed


async def test_a_body_that_breaks_off_takes_nothing_from_its_status() -> None:
    body = Dripping(b"half", fault=httpx.ReadError("connection reset"))
    attempt = await attempt_with(httpx.Response(503, headers={"retry-after": "9"}, stream=body))
    assert (attempt.status_code, attempt.error, attempt.retry_after) == (503, None, "9")
    assert attempt.response_body == b"half"


async def test_of_an_endless_body_64_kib_are_read_and_4_kept() -> None:
    body = Dripping(b"x" * 1_000)
    attempt = await attempt_with(httpx.Response(200, stream=body))
    assert attempt.response_body == b"x" * 4_096
    assert body.chunks == -(-LONGEST_BODY // 1_000)
    assert body.is_closed


async def test_a_compressed_body_is_kept_as_it_came() -> None:
    body = Dripping(b"\x1f\x8b not gzip", fault=httpx.ReadError("end"))
    attempt = await attempt_with(httpx.Response(200, headers={"content-encoding": "gzip"}, stream=body))
    assert attempt.response_body == b"\x1f\x8b not gzip"


async def test_headers_that_are_no_text_or_too_many_are_kept_as_far_as_they_can_be() -> None:
    headers = [(b"x-odd", b"\xff\x00a"), *[(b"x-%d" % number, b"y" * 1_000) for number in range(20)]]
    attempt = await attempt_with(httpx.Response(200, headers=headers))
    assert attempt.response_headers["x-odd"] == "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}a"
    assert sum(len(name) + len(value) for name, value in attempt.response_headers.items()) <= 8_192


async def test_a_redirect_is_an_answer_like_any_other() -> None:
    calls = 0

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        return httpx.Response(302, headers={"location": "https://example.com/elsewhere"})

    attempt = await a_sender(answer).send(DELIVERY, ENDPOINT)
    assert (attempt.status_code, calls) == (302, 1)


async def test_retry_after_is_kept_for_429_and_503_alone() -> None:
    kept = [
        (await attempt_with(httpx.Response(status, headers={"retry-after": "9"}))).retry_after
        for status in (200, 429, 500, 503)
    ]
    assert kept == [None, "9", None, "9"]


async def test_a_changed_endpoint_is_sent_to_as_it_is_now() -> None:
    urls: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        urls.append(str(request.url))
        return httpx.Response(204)

    sender = a_sender(answer)
    await sender.send(DELIVERY, ENDPOINT)
    await sender.send(DELIVERY, replace(ENDPOINT, url="https://example.org/"))
    assert urls == ["https://example.com/hooks", "https://example.org/"]
