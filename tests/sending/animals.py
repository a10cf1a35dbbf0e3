"""What receivers do: as they should, as they do when they are ill, and as no one would believe."""

import asyncio
import gzip
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from tests.sending.receivers import Behaviour, Caller, answering

OKAY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-reply: yes\r\n\r\nok"
NO_BODY = b"content-length: 0\r\n\r\n"
DRIP_SECONDS = 0.02
GZIPPED = gzip.compress(b"thank you", mtime=0)


def answers(status: int, rest: bytes = NO_BODY) -> Behaviour:
    """*status*, and *rest*: what follows the status line."""
    return answering(b"HTTP/1.1 %d Some Reason\r\n" % status + rest)


def answering_once(answer: bytes) -> Behaviour:
    """Closes after its answer, without a word."""

    async def behave(caller: Caller) -> None:
        if await caller.request():
            await caller.say(answer)
            caller.writer.write_eof()

    return behave


def held_until_a_date(status: int, wait: timedelta) -> Behaviour:
    """`Retry-After` with the date that is *wait* away."""

    async def behave(caller: Caller) -> None:
        while await caller.request():
            date = format_datetime(datetime.now(UTC) + wait, usegmt=True).encode()
            await caller.say(b"HTTP/1.1 %d Busy\r\nretry-after: %b\r\n" % (status, date), NO_BODY)

    return behave


async def silent(caller: Caller) -> None:
    """Takes the connection, and reads nothing."""
    await asyncio.Event().wait()


async def reading_then_silent(caller: Caller) -> None:
    await caller.request()
    await caller.gone()


async def closing(caller: Caller) -> None:
    await caller.request()


async def closing_at_once(caller: Caller) -> None:
    """Takes the connection, and closes it."""


async def closing_at_the_first_byte(caller: Caller) -> None:
    await caller.reader.read(65_536)


async def answering_in_clear(caller: Caller) -> None:
    await caller.reader.read(65_536)
    await caller.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await caller.gone()


async def resetting(caller: Caller) -> None:
    await caller.request()
    caller.reset()


async def resetting_at_once(caller: Caller) -> None:
    caller.reset()


async def closing_within_the_head(caller: Caller) -> None:
    await caller.request()
    await caller.say(b"HTTP/1.1 200 OK\r\nx-a")


async def closing_within_the_body(caller: Caller) -> None:
    await caller.request()
    await caller.say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")


async def resetting_within_the_body(caller: Caller) -> None:
    await caller.request()
    await caller.say(b"HTTP/1.1 503 Busy\r\ncontent-length: 10\r\n\r\nhalf")
    await asyncio.sleep(DRIP_SECONDS)
    caller.reset()


async def answering_then_in_bad_chunks(caller: Caller) -> None:
    await caller.request()
    await caller.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    await asyncio.sleep(DRIP_SECONDS)
    await caller.say(b"not a length\r\n")
    await caller.gone()


async def answering_then_resetting(caller: Caller) -> None:
    await caller.request()
    await caller.say(OKAY)
    caller.reset()


async def dripping_headers(caller: Caller) -> None:
    await caller.request()
    await caller.say(b"HTTP/1.1 200 OK\r\n")
    for byte in b"x-a: " + b"b" * 10_000:
        await caller.say(bytes([byte]))
        await asyncio.sleep(DRIP_SECONDS)


async def dripping_body(caller: Caller) -> None:
    await caller.request()
    await caller.say(b"HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        await caller.say(b"1\r\nx\r\n")
        await asyncio.sleep(DRIP_SECONDS)


async def endless_body(caller: Caller) -> None:
    await caller.request()
    await caller.say(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        await caller.say(b"x" * 65_536)


async def endless_headers(caller: Caller) -> None:
    await caller.request()
    await caller.say(b"HTTP/1.1 200 OK\r\n")
    while True:
        await caller.say(b"x-a: b\r\n" * 1_000)


async def informing_for_ever(caller: Caller) -> None:
    await caller.request()
    while True:
        await caller.say(b"HTTP/1.1 102 Processing\r\n\r\n")
        await asyncio.sleep(DRIP_SECONDS)


async def answering_before_the_request_is_read(caller: Caller) -> None:
    await caller.say(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    await caller.gone()


async def answering_before_the_request_is_read_then_closing(caller: Caller) -> None:
    """What was sent to it and not read makes the kernel answer with a RST."""
    await caller.reader.readuntil(b"\r\n\r\n")
    await caller.say(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")


async def echoing(caller: Caller) -> None:
    """Answers with what it was sent, as receivers do that are being debugged."""
    while request := await caller.request():
        head = request.partition(b"\r\n\r\n")[0]
        token = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"x-token"))
        await caller.say(
            b"HTTP/1.1 500 Debugging\r\nx-seen: %b\r\nset-cookie: session=swordfish\r\n" % token,
            b"content-length: %d\r\n\r\n%b" % (len(head), head),
        )
