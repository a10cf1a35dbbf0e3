"""Attempts over real sockets: connections, addresses, names and certificates. The receivers' zoo is in test_zoo.py."""

import asyncio
import math
import queue
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import uvloop
from aiohttp.abc import AbstractResolver

from tests.fakes.deliveries import a_delivery, an_endpoint
from tests.sending.animals import answering_before_the_request_is_read, closing, endless_body
from tests.sending.names import Names, name_server
from tests.sending.receivers import OK, Authority, Caller, Receiver, receiving
from webhooks import Webhook
from webhooks.deliveries import Attempt, Failure
from webhooks.destinations import Guard, parse_networks
from webhooks.ownership import seconds_awake_or_asleep
from webhooks.sender import Sender
from webhooks.signing import new_secret
from webhooks.transport import NOT_AFTER, STALE_SECONDS, VettingTransport

LOCAL = Guard(parse_networks(["127.0.0.1"]))
SECRET = new_secret()
OKAY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-reply: yes\r\n\r\nok"
TIMEOUT = 0.5


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def sending(
    guard: Guard = LOCAL,
    *,
    resolver: AbstractResolver | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Callable[..., "asyncio.Task[Attempt]"]]:
    """A function that makes an attempt at a URL."""
    async with VettingTransport(guard, ssl_context=tls, resolver=resolver) as transport:
        sender = Sender(transport, user_agent="arrw-gateway/0", clock=lambda: datetime.now(UTC))

        def send(
            url: str, *, body: bytes = b'{"data":{}}', timeout_seconds: float = TIMEOUT
        ) -> "asyncio.Task[Attempt]":
            endpoint = an_endpoint(url=url, secrets=(SECRET,), timeout_seconds=timeout_seconds)
            return asyncio.create_task(sender.send(a_delivery(body=body), endpoint))

        yield send


async def test_a_real_receiver_gets_a_request_that_verifies() -> None:
    seen: list[bytes] = []

    async def behave(caller: Caller) -> None:
        while request := await caller.request():
            seen.append(request)
            await caller.say(OKAY)

    async with receiving(behave) as receiver, sending() as send:
        first = await send(receiver.url(), body=b'{"a":"\xc3\xbc"}')
        second = await send(receiver.url(), body=b'{"a":"\xc3\xbc"}')
    assert (first.status_code, first.error, first.response_body) == (200, None, b"ok")
    assert first.response_headers == {"content-length": "2", "x-reply": "yes"}
    assert first.connect is not None
    assert first.first_byte is not None
    assert timedelta(0) < first.connect <= first.first_byte <= first.duration
    assert (second.status_code, second.connect, receiver.connections) == (200, None, 1)
    head, _, body = seen[0].partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = dict(one.split(": ", 1) for one in lines)
    assert line == "POST /hooks HTTP/1.1"
    assert Webhook(SECRET.text).verify(body, headers) == {"a": "ü"}
    assert sorted(name.lower() for name in headers) == [
        *("accept", "content-length", "content-type", "host", "user-agent"),
        *("webhook-id", "webhook-signature", "webhook-timestamp"),
    ]


async def test_a_body_larger_than_the_socket_takes_is_sent_whole_and_an_early_answer_counts() -> None:
    large = b'{"data":"' + b"x" * 250_000 + b'"}'
    async with receiving(answering_before_the_request_is_read) as receiver, sending() as send:
        assert (await send(receiver.url(), body=large)).status_code == 413
    async with receiving(OK) as receiver, sending() as send:
        assert (await send(receiver.url(), body=large)).status_code == 204


async def test_an_endless_answer_is_read_no_further_than_64_kib_and_its_connection_closed() -> None:
    async with receiving(endless_body) as receiver, sending() as send:
        attempt = await send(receiver.url(), timeout_seconds=30)
        assert attempt.duration < timedelta(seconds=5)
        await asyncio.wait_for(receiver.left.wait(), 5)


async def test_a_connection_closed_while_idle_is_replaced_without_a_failed_attempt() -> None:
    async def once(caller: Caller) -> None:
        await caller.request()
        await caller.say(OKAY)
        # It is closed at the very moment when the next request comes.
        await caller.reader.read(1)
        caller.reset()

    async with receiving(once) as receiver, sending() as send:
        statuses = [(await send(receiver.url())).status_code for _ in range(5)]
    assert statuses == [200] * 5
    assert receiver.connections == 5


async def test_a_receiver_that_took_the_request_and_then_broke_off_has_failed_though_its_connection_was_reused() -> (
    None
):
    async def taking_its_time(caller: Caller) -> None:
        await caller.request()
        await caller.say(OKAY)
        await caller.request()
        await asyncio.sleep(STALE_SECONDS + 0.1)
        caller.reset()

    async with receiving(taking_its_time) as receiver, sending() as send:
        await send(receiver.url(), timeout_seconds=10)
        attempt = await send(receiver.url(), timeout_seconds=10)
    assert (attempt.error, attempt.failure) == ("connection reset", Failure.UNREACHABLE)
    assert len(receiver.requests) == 2


async def test_many_idle_connections_that_were_closed_cost_no_attempt() -> None:
    together = asyncio.Barrier(8)

    async def once(caller: Caller) -> None:
        await caller.request()
        if caller.number <= 8:
            await together.wait()  # all at once, so that each needs a connection of its own
        await caller.say(OKAY)
        await caller.reader.read(1)
        caller.reset()

    async with receiving(once) as receiver, sending() as send:
        for _ in range(2):
            attempts = await asyncio.gather(*(send(receiver.url(), timeout_seconds=10) for _ in range(8)))
            assert [attempt.status_code for attempt in attempts] == [200] * 8
    assert receiver.connections == 16


async def test_a_fresh_connection_that_is_closed_is_not_tried_again() -> None:
    async with receiving(closing) as receiver, sending() as send:
        await send(receiver.url())
        assert receiver.connections == 1


async def test_what_was_to_go_out_before_now_does_not() -> None:
    async def behave(caller: Caller) -> None:
        while await caller.request():
            await caller.say(OKAY)

    async with receiving(behave) as receiver, VettingTransport(LOCAL) as transport:
        late = httpx.Request("POST", receiver.url(), content=b"{}", extensions={NOT_AFTER: seconds_awake_or_asleep()})
        with pytest.raises(httpx.WriteTimeout, match="too late"):
            await transport.handle_async_request(late)
        await receiver.left.wait()
        assert receiver.requests == []
        in_time = httpx.Request("POST", receiver.url(), content=b"{}", extensions={NOT_AFTER: math.inf})
        answer = await transport.handle_async_request(in_time)
        await answer.aread()
    assert (answer.status_code, len(receiver.requests)) == (200, 1)


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # smaller ones the system may take whole
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_what_the_socket_has_no_room_for_in_time_is_broken_off(scheme: str, authority: Authority) -> None:
    too_late = asyncio.Event()

    async def behave(caller: Caller) -> None:
        await too_late.wait()
        await caller.request()

    large, not_after = b"x" * 2**24, seconds_awake_or_asleep() + 0.3
    async with (
        receiving(behave, tls=authority.serving("127.0.0.1") if scheme == "https" else None) as receiver,
        VettingTransport(LOCAL, ssl_context=authority.trusting()) as transport,
    ):
        request = httpx.Request("POST", receiver.url(scheme=scheme), content=large, extensions={NOT_AFTER: not_after})
        sending = asyncio.create_task(transport.handle_async_request(request))
        await asyncio.wait([sending], timeout=not_after - seconds_awake_or_asleep())
        assert not sending.done()
        too_late.set()
        with pytest.raises(httpx.WriteTimeout, match="too late"):
            await sending
        await receiver.left.wait()
        assert receiver.requests == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_is_written_goes_out_at_once_and_not_at_the_end_of_a_turn(scheme: str, authority: Authority) -> None:
    """Of uvloop, which the gateway runs on: a look at the clock right before is worth nothing otherwise."""
    came: queue.Queue[bytes] = queue.Queue()

    def receive(listener: socket.socket) -> None:
        caller, _ = listener.accept()
        with (
            authority.serving("127.0.0.1").wrap_socket(caller, server_side=True)
            if scheme == "https"
            else caller as caller
        ):
            came.put(caller.recv(10))

    async def write(port: int) -> bytes:
        tls = authority.trusting() if scheme == "https" else None
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", port, ssl=tls)
        transport.write(b"now")
        try:
            return came.get(timeout=5)  # within the turn: nothing else runs on this loop meanwhile
        finally:
            transport.abort()

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as threads:
        receiving = threads.submit(receive, listener)
        assert uvloop.run(write(listener.getsockname()[1])) == b"now"
        receiving.result()


async def test_nobody_listening_is_refused() -> None:
    async with receiving(OK) as receiver:
        url = receiver.url()
    async with sending() as send:
        attempt = await send(url)
    assert (attempt.error, attempt.failure) == ("connection refused", Failure.UNREACHABLE)


async def test_cookies_are_neither_kept_nor_sent() -> None:
    seen: list[bytes] = []

    async def behave(caller: Caller) -> None:
        while request := await caller.request():
            seen.append(request)
            await caller.say(b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n")

    async with receiving(behave) as receiver, sending() as send:
        for _ in range(2):
            await send(receiver.url())
    assert b"cookie" not in seen[1].lower()


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    async with receiving(OK) as receiver, sending() as send:
        assert (await send(receiver.url())).status_code == 204


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"])
async def test_no_forbidden_address_is_connected_to(host: str) -> None:
    async with receiving(OK) as receiver, sending(Guard()) as send:
        attempt = await send(receiver.url(host))
        assert (attempt.error, attempt.failure) == ("not an address of the public internet", Failure.FORBIDDEN)
        assert receiver.connections == 0


async def test_a_name_that_leads_to_forbidden_addresses_is_refused() -> None:
    names = Names(inside_example=[["10.0.0.1", "192.168.0.1", "fd00::1"]])
    async with sending(resolver=names) as send:
        attempt = await send("http://inside.example/")
    assert attempt.failure is Failure.FORBIDDEN
    assert "10.0.0.1" not in repr(attempt)


async def test_a_name_that_changes_its_mind_is_checked_again_at_each_connection() -> None:
    names = Names(rebinding_example=[["127.0.0.1"], ["127.0.0.2"]])

    async def once(caller: Caller) -> None:
        await caller.request()
        await caller.say(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")

    async with receiving(once, host="0.0.0.0") as receiver:
        async with sending(resolver=names) as send:
            assert (await send(receiver.url("rebinding.example"))).status_code == 200
        async with sending(resolver=names) as send:
            assert (await send(receiver.url("rebinding.example"))).failure is Failure.FORBIDDEN
        assert receiver.connections == 1


async def test_of_several_addresses_only_the_permitted_are_tried() -> None:
    names = Names(mixed_example=[["10.0.0.1", "127.0.0.1", "169.254.169.254"]])
    async with receiving(OK) as receiver, sending(resolver=names) as send:
        assert (await send(receiver.url("mixed.example"))).status_code == 204


async def test_one_permitted_address_that_refuses_makes_it_unreachable_and_not_forbidden() -> None:
    names = Names(mixed_example=[["10.0.0.1", "127.0.0.1"]])
    async with receiving(OK) as receiver:
        url = receiver.url("mixed.example")
    async with sending(resolver=names) as send:
        assert (await send(url)).failure is Failure.UNREACHABLE


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error", "failure"),
    [
        (3, "name not found", Failure.UNREACHABLE),
        (2, "name could not be resolved", Failure.UNREACHABLE),
        (None, "name server did not answer", Failure.TIMEOUT),
    ],
)
async def test_a_name_without_an_address_says_why(code: int | None, error: str, failure: Failure) -> None:
    async with name_server(code) as resolver, sending(resolver=resolver) as send:
        attempt = await send("http://receiver.example/", timeout_seconds=5)
    assert (attempt.error, attempt.failure) == (error, failure)


async def test_names_that_are_never_answered_hold_up_nobody_else() -> None:
    async with (
        name_server(None, deadline_seconds=3) as resolver,
        receiving(OK) as receiver,
        sending(resolver=resolver) as send,
    ):
        slow = [send(f"http://slow{number}.example/", timeout_seconds=1) for number in range(50)]
        await asyncio.sleep(0)
        attempt = await send(receiver.url())
        assert attempt.status_code == 204
        assert attempt.duration < timedelta(seconds=0.5)
        assert not any(task.done() for task in slow)
        assert {(await task).failure for task in slow} == {Failure.TIMEOUT}


# --- TLS -------------------------------------------------------------------------------------------------------------


async def attempt_over_tls(receiver: Receiver, trusting: ssl.SSLContext, host: str = "hooks.example") -> Attempt:
    names = Names(hooks_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])
    async with sending(resolver=names, tls=trusting) as send:
        return await send(receiver.url(host, "https"))


async def test_a_good_certificate_is_accepted(authority: Authority) -> None:
    async with receiving(OK, tls=authority.serving("hooks.example")) as receiver:
        assert (await attempt_over_tls(receiver, authority.trusting())).status_code == 204
    async with receiving(OK, tls=authority.serving("127.0.0.1")) as receiver:
        assert (await attempt_over_tls(receiver, authority.trusting(), "127.0.0.1")).status_code == 204


@pytest.mark.parametrize(
    ("flaw", "error"),
    [
        ({"expired": True}, "certificate expired"),
        ({"not_yet": True}, "certificate not valid yet"),
        ({"self_signed": True}, "certificate self-signed"),
    ],
    ids=str,
)
async def test_a_bad_certificate_is_refused_in_words(authority: Authority, flaw: dict[str, bool], error: str) -> None:
    async with receiving(OK, tls=authority.serving("hooks.example", **flaw)) as receiver:
        attempt = await attempt_over_tls(receiver, authority.trusting())
    assert (attempt.error, attempt.failure) == (error, Failure.UNREACHABLE)


async def test_a_certificate_for_another_name_or_of_another_authority_is_refused(authority: Authority) -> None:
    async with receiving(OK, tls=authority.serving("hooks.example")) as receiver:
        attempt = await attempt_over_tls(receiver, authority.trusting(), "other.example")
        assert attempt.error == "certificate is for another name"
        attempt = await attempt_over_tls(receiver, ssl.create_default_context())
        assert attempt.error == "certificate of an unknown authority"


async def test_a_receiver_that_speaks_no_tls_is_told_so() -> None:
    async def behave(caller: Caller) -> None:
        await caller.reader.read(1)
        await caller.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with receiving(behave) as receiver, sending() as send:
        attempt = await send(receiver.url(scheme="https"))
    assert attempt.failure is Failure.UNREACHABLE
    assert attempt.error is not None
    assert attempt.error.startswith("TLS failed: ")
