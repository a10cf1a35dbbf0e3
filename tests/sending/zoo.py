"""The zoo: which animals there are, where each lives, and what is to become of a delivery to it."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from tests.e2e.api import Json
from tests.sending import animals
from tests.sending.animals import OKAY, answering_once, answers, held_until_a_date
from tests.sending.receivers import OK, Authority, Behaviour, Receiver, answering, receiving

WAIT_SECONDS = 60.0
SHORT = 1.0
PATIENT = 5.0
"""For those that have answered long before, but go on: that they did is not to depend on how busy the machine is."""
"""The time-out of those that are known to use it up."""
LONG = 20.0
LARGE = "x" * 250_000

Home = Callable[["Keeper"], AbstractAsyncContextManager[tuple[str, Receiver | None]]]
"""Where an animal lives: its URL, and what it gets."""


@dataclass(frozen=True, kw_only=True)
class Keeper:
    """What homes are made of."""

    authority: Authority
    elsewhere: Receiver
    """Where redirects lead."""


@dataclass(frozen=True)
class Delivered:
    """2xx."""


@dataclass(frozen=True)
class Again:
    """It is tried again *after* this many seconds; None: as the schedule says."""

    after: float | None = None


@dataclass(frozen=True)
class Dead:
    reason: str


@dataclass(frozen=True, kw_only=True)
class Animal:
    name: str
    home: Home
    verdict: Delivered | Again | Dead
    status: int | None = None
    words: str | None = None
    failure: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Some that are kept of its answer."""
    body: str | None = None
    """What is kept of it; None: no matter what."""
    timeout: float = LONG
    title: str = "short"
    disabled: str | None = None

    @property
    def library(self) -> str:
        return self.name.replace(" ", "_").replace(",", "").replace("/", "")


# --- homes -----------------------------------------------------------------------------------------------------------


def at(behave: Behaviour, *, host: str = "127.0.0.1", scheme: str = "http", certificate: Json | None = None) -> Home:
    """On loopback; *certificate* is what it asks of the authority."""

    @asynccontextmanager
    async def home(keeper: Keeper) -> AsyncIterator[tuple[str, Receiver | None]]:
        tls = None if certificate is None else keeper.authority.serving(certificate["name"], **certificate["flaws"])
        async with receiving(behave, tls=tls) as receiver:
            yield receiver.url(host, scheme), receiver

    return home


def secure(name: str = "hooks.example", **flaws: bool) -> Home:
    return at(OK, host="hooks.example", scheme="https", certificate={"name": name, "flaws": flaws})


def redirecting(status: int, location: str | None = None) -> Home:
    """To a page that works, unless a *location* is given."""

    @asynccontextmanager
    async def home(keeper: Keeper) -> AsyncIterator[tuple[str, Receiver | None]]:
        target = (location or keeper.elsewhere.url()).encode()
        async with receiving(answers(status, b"location: %b\r\n" % target + animals.NO_BODY)) as receiver:
            yield receiver.url(), receiver

    return home


@asynccontextmanager
async def nobody(_: Keeper) -> AsyncIterator[tuple[str, Receiver | None]]:
    async with receiving(OK) as receiver:
        url = receiver.url()
    yield url, None


def named(url: str) -> Home:
    @asynccontextmanager
    async def home(_: Keeper) -> AsyncIterator[tuple[str, Receiver | None]]:
        yield url, None

    return home


# --- the table -------------------------------------------------------------------------------------------------------


def takes(name: str, behave: Behaviour, status: int, **more: object) -> Animal:
    return Animal(name=name, home=at(behave), verdict=Delivered(), status=status, **more)  # type: ignore[arg-type]  # real fields


def answers_no(name: str, behave: Behaviour, status: int, after: float | None = None, **more: object) -> Animal:
    return Animal(name=name, home=at(behave), verdict=Again(after), status=status, **more)  # type: ignore[arg-type]  # real fields


def no_answer(name: str, home: Home, words: str, failure: str, **more: object) -> Animal:
    return Animal(name=name, home=home, verdict=Again(), words=words, failure=failure, **more)  # type: ignore[arg-type]  # real fields


CHUNKED = b"transfer-encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n"
TIMED_OUT = f"timed out after {SHORT:g} s"
CUT = "connection closed without an answer"
NOT_HTTP = "the answer is not HTTP"

ZOO = [
    # 2xx of every kind
    *(takes(f"{status}", answers(status), status, body="") for status in (200, 201, 202, 206, 226, 299)),
    takes("204", answers(204, b"\r\n"), 204, body=""),
    takes("205", answers(205, b"\r\n"), 205, body="", timeout=PATIENT),
    takes("200 with a body", answering(OKAY), 200, body="ok", headers={"x-reply": "yes", "content-length": "2"}),
    takes("200 in chunks", answers(200, CHUNKED), 200, body="yes"),
    takes("200 up to its end", answering_once(b"HTTP/1.1 200 OK\r\n\r\nbye"), 200, body="bye"),
    takes(
        "200 with more than 4 KiB", answers(200, b"content-length: 9000\r\n\r\n" + b"y" * 9000), 200, body="y" * 4096
    ),
    takes(
        "200 in gzip",
        answers(
            200,
            b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(animals.GZIPPED), animals.GZIPPED),
        ),
        200,
        body=animals.GZIPPED.decode(errors="replace"),
    ),
    takes(
        "200 in lies about gzip", answers(200, b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\nok"), 200, body="ok"
    ),
    takes("HTTP/1.0", answering_once(b"HTTP/1.0 200 OK\r\n\r\nbye"), 200, body="bye"),
    takes("100 first", answering(b"HTTP/1.1 100 Continue\r\n\r\n" + OKAY), 200, body="ok"),
    takes("103 first", answering(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + OKAY), 200, body="ok"),
    takes("large", OK, 204, title=LARGE),
    # whose status is there: what becomes of the body takes nothing from it
    takes("200 then resets", animals.answering_then_resetting, 200, body="ok"),
    takes("closes within the body", animals.closing_within_the_body, 200, body="half"),
    answers_no("resets within the body", animals.resetting_within_the_body, 503, body="half"),
    takes("drips its body", animals.dripping_body, 202, timeout=PATIENT),
    takes("never ends its body", animals.endless_body, 200, body="x" * 4096),
    takes("200, then bad chunks", animals.answering_then_in_bad_chunks, 200, timeout=PATIENT),
    # 3xx: failures that are never followed
    *(
        Animal(name=f"{status}", home=redirecting(status), verdict=Again(), status=status)
        for status in (300, 301, 302, 303, 307, 308)
    ),
    Animal(name="304", home=at(answers(304, b"\r\n")), verdict=Again(), status=304),
    Animal(
        name="302 to a private address",
        home=redirecting(302, "http://10.0.0.1/latest/meta-data"),
        verdict=Again(),
        status=302,
        headers={"location": "http://10.0.0.1/latest/meta-data"},
    ),
    # 4xx and 5xx
    *(
        answers_no(f"{status}", answers(status), status)
        for status in (400, 401, 403, 404, 409, 422, 500, 502, 504, 599)
    ),
    answers_no("101", answers(101, b"upgrade: websocket\r\n\r\n"), 101, timeout=PATIENT),
    answers_no("999", answers(999), 999),
    Animal(name="410", home=at(answers(410)), verdict=Dead("gone"), status=410, disabled="gone"),
    *(
        animal
        for status in (429, 503)
        for animal in (
            answers_no(f"{status}", answers(status), status),
            answers_no(
                f"{status} in seconds",
                answers(status, b"retry-after: 300\r\n" + animals.NO_BODY),
                status,
                300,
                headers={"retry-after": "300"},
            ),
            answers_no(
                f"{status} sooner than the schedule", answers(status, b"retry-after: 1\r\n" + animals.NO_BODY), status
            ),
            answers_no(f"{status} by a date", held_until_a_date(status, timedelta(hours=1)), status, 3_600),
            answers_no(f"{status} for a year", held_until_a_date(status, timedelta(days=365)), status, 86_400),
            answers_no(f"{status} in nonsense", answers(status, b"retry-after: soon\r\n" + animals.NO_BODY), status),
        )
    ),
    answers_no("500 with a Retry-After", answers(500, b"retry-after: 300\r\n" + animals.NO_BODY), 500),
    # nobody there
    no_answer("refused", nobody, "connection refused", "unreachable"),
    no_answer("silent", at(animals.silent), TIMED_OUT, "timeout", timeout=SHORT),
    no_answer("silent to a large one", at(animals.silent), TIMED_OUT, "timeout", timeout=SHORT, title=LARGE),
    no_answer("reads then silent", at(animals.reading_then_silent), TIMED_OUT, "timeout", timeout=SHORT),
    no_answer("closes", at(animals.closing), CUT, "unreachable"),
    no_answer("closes at once", at(animals.closing_at_once), CUT, "unreachable"),
    no_answer("resets", at(animals.resetting), "connection reset", "unreachable"),
    no_answer("resets at once", at(animals.resetting_at_once), "connection reset", "unreachable"),
    no_answer(
        "resets at once to a large one", at(animals.resetting_at_once), "connection reset", "unreachable", title=LARGE
    ),
    no_answer("closes within the head", at(animals.closing_within_the_head), CUT, "unreachable"),
    no_answer("drips its headers", at(animals.dripping_headers), TIMED_OUT, "timeout", timeout=SHORT),
    no_answer("informs for ever", at(animals.informing_for_ever), TIMED_OUT, "timeout", timeout=SHORT),
    # answers before the request is read
    answers_no("413 before reading", animals.answering_before_the_request_is_read, 413, title=LARGE),
    answers_no("413 and closes", animals.answering_before_the_request_is_read_then_closing, 413, title=LARGE),
    # what is not HTTP
    no_answer("SSH", at(answering(b"SSH-2.0-OpenSSH_9.2\r\n")), NOT_HTTP, "protocol"),
    no_answer("HTTP/0.9", at(answering_once(b"<html>hello</html>")), NOT_HTTP, "protocol"),
    no_answer("no status", at(answering(b"HTTP/1.1 abc\r\n\r\n")), NOT_HTTP, "protocol"),
    no_answer(
        "bad chunks in one breath with their head",
        at(answers(200, b"transfer-encoding: chunked\r\n\r\nnot a length\r\n")),
        NOT_HTTP,
        "protocol",
    ),
    no_answer("bytes", at(answering(bytes(range(256)) * 4)), NOT_HTTP, "protocol"),
    no_answer(
        "a huge header",
        at(answering(b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * 100_000 + b"\r\n\r\n")),
        "the headers of the answer are too large",
        "protocol",
    ),
    no_answer(
        "never ends its headers", at(animals.endless_headers), "the headers of the answer are too large", "protocol"
    ),
    # names
    no_answer("no such name", named("http://nowhere.example/"), "name not found", "unreachable"),
    no_answer("a mute name server", named("http://mute.example/"), "name server did not answer", "timeout"),
    Animal(
        name="a name that leads inside",
        home=named("http://inside.example/"),
        verdict=Dead("forbidden_destination"),
        words="not an address of the public internet",
        failure="forbidden",
    ),
    # TLS
    Animal(name="secure", home=secure(), verdict=Delivered(), status=204),
    no_answer("expired", secure(expired=True), "certificate expired", "unreachable"),
    no_answer("not valid yet", secure(not_yet=True), "certificate not valid yet", "unreachable"),
    no_answer("self-signed", secure(self_signed=True), "certificate self-signed", "unreachable"),
    no_answer("for another name", secure("other.example"), "certificate is for another name", "unreachable"),
    no_answer(
        "closes within the handshake",
        at(animals.closing_at_the_first_byte, scheme="https"),
        "connection closed within the TLS handshake",
        "unreachable",
    ),
    no_answer(
        "speaks no TLS",
        at(animals.answering_in_clear, scheme="https"),
        "TLS failed: wrong version number",
        "unreachable",
    ),
    no_answer("silent within the handshake", at(animals.silent, scheme="https"), TIMED_OUT, "timeout", timeout=SHORT),
    # what it says of secrets
    answers_no(
        "echo",
        animals.echoing,
        500,
        headers={"x-seen": "x-token: ***", "set-cookie": "***"},
    ),
]
