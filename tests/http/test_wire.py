"""The way to a reader: both adapters under the same tests, on both loops, and what is assumed of uvicorn."""

import asyncio
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http.wire import StreamProtocol
from gateway.http.wire.detached import BUFFER_BYTES
from gateway.streams.sinks import End
from gateway.streams.stream import State
from gateway.streams.streaming import OUTRUN_BYTES, PATIENCE_SECONDS, STALLED_BYTES
from tests.http.served import HANGS, PATH, Connection, Served, serving
from tests.http.wired import BIG, Wired, is_in
from tests.until import until

LOOP_FACTORIES = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
ADAPTERS: dict[str, dict[str, Any]] = {"detached": {}, "plain": {"http": "httptools"}}


@pytest.fixture(params=ADAPTERS)
async def wired(request: pytest.FixtureRequest) -> AsyncIterator[Wired]:
    """Reached by each adapter in turn."""
    served = Served()
    async with serving(served, **ADAPTERS[request.param]) as running:
        yield Wired(served, running, request.param)


@pytest.fixture
async def detached() -> AsyncIterator[Wired]:
    served = Served()
    async with serving(served) as running:
        yield Wired(served, running)


# --- both ways -------------------------------------------------------------------------------------------------------


async def test_what_is_published_arrives(wired: Wired) -> None:
    async with wired.served.reading() as reader:
        assert reader.status == 200
        await reader.until(lambda source: source.last_event_id == "k3v9-0")
        await wired.served.publish_numbers(1, 3)
        await reader.until_events(3)
        assert reader.numbers == [1, 2, 3]
        assert reader.source.last_event_id == "k3v9-3"


async def test_a_burst_arrives_whole_and_in_order(wired: Wired) -> None:
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(wired.served.reading()) for _ in range(5)]
        for start in range(0, 4_000, 200):
            await wired.served.publish_numbers(start, start + 199)
        for reader in readers:
            await reader.until_events(4_000)
            assert reader.numbers == list(range(4_000))


async def test_head_is_answered_without_a_stream(wired: Wired) -> None:
    async with wired.served.reading(method="HEAD") as reader:
        assert reader.status == 200
        assert reader.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert "content-length" not in reader.headers
        assert len(wired.served.streams) == 0


async def test_a_connection_that_served_other_requests_can_end_in_a_stream(wired: Wired) -> None:
    async with wired.served.reading("/v1/nowhere") as reader:
        assert reader.status == 404
        await reader.read_piece()
        reader.headers, reader.body = {}, b""
        reader.writer.write(reader.request.replace(b"/v1/nowhere", PATH.encode()))
        await reader.head()
        await wired.served.publish_numbers(1, 1)
        await reader.until_events(1)


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
async def test_a_reader_that_leaves_is_noticed(wired: Wired, how: str) -> None:
    async with wired.served.reading() as reader:
        if how == "reset":
            sock = reader.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "half-close":
            reader.writer.write_eof()
        else:
            reader.writer.close()
        await until(lambda: len(wired.served.streams) == 0)
        assert wired.served.streams.hub.channels == 0
        await wired.served.publish_numbers(1, 1)  # nobody is there, and nothing breaks


async def test_an_ended_stream_ends_properly(wired: Wired) -> None:
    async with wired.served.reading() as reader:
        wired.only_stream.end(End.ENDED, retry_ms=4_321)
        source = await reader.rest()
        assert source.reconnection_ms == 4_321
        assert reader.ended


async def test_a_reader_that_stops_reading_costs_nothing_and_misses_nothing(wired: Wired) -> None:
    async with wired.served.reading() as other, wired.served.reading() as slow:
        stream = wired.served.streams.all()[-1]
        published = await wired.publish_until_behind(stream)
        await wired.publish_big(64)
        await other.until_events(published + 64)
        await slow.until_events(published + 64)
        assert [event.last_event_id for event in slow.source.events] == [
            f"k3v9-{number}" for number in range(1, published + 65)
        ]
        await until(lambda: stream.state is State.LIVE)


async def test_a_stalled_reader_is_closed_when_enough_waits_and_time_has_passed(wired: Wired) -> None:
    served = wired.served
    async with served.reading() as slow:
        stream = wired.only_stream
        await wired.publish_until_behind(stream)
        served.seconds += PATIENCE_SECONDS
        served.streams.tick()
        assert is_in(State.BEHIND, stream)  # it is slow, but not far behind
        while stream.lag_bytes < STALLED_BYTES:
            await wired.publish_big(16)
        stream.progressed_at = served.seconds
        served.streams.tick()
        assert is_in(State.BEHIND, stream)  # it is far behind, but perhaps about to read
        served.seconds += PATIENCE_SECONDS
        served.streams.tick()
        assert is_in(State.ENDED, stream)
        assert served.streams.counts.ended == {"too_slow": 1}
        while await slow.read_piece():
            pass
        assert not slow.ended  # it was cut off, and what it got before is whole
        got = [int(event.last_event_id.split("-")[1]) for event in slow.source.events]
        assert got == list(range(1, len(got) + 1))
        async with served.reading(headers={"last-event-id": slow.source.last_event_id}) as back:
            missing = range(len(got) + 1, served.tail.cursor + 1)
            await back.until_events(len(missing))
            assert [event.last_event_id for event in back.source.events] == [f"k3v9-{number}" for number in missing]


async def test_a_reader_that_falls_out_of_the_ring_goes_on_from_the_log(wired: Wired) -> None:
    served = wired.served
    async with served.reading("/v1/libraries/mine/events/stream") as reader:
        stream = wired.only_stream
        published = 0
        while stream.state is not State.BEHIND:
            await served.publish(*[b'{"x":"%b"}' % (b"x" * BIG)] * 16, library_id="mine")
            published += 16
        while served.streams.hub.ring_after <= stream.cursor:
            await wired.publish_big(64)  # of another library: it is not this reader that is behind
        served.seconds += PATIENCE_SECONDS
        served.streams.tick()
        await served.publish(b'{"last":true}', library_id="mine")
        await reader.until_events(published + 1)
        await until(lambda: stream.state is State.LIVE)
        assert served.streams.counts.gaps == 0


async def test_a_reader_that_does_not_take_its_end_is_cut_off(wired: Wired) -> None:
    state = wired.running.server.server_state
    async with wired.served.reading():
        await wired.publish_until_behind(wired.only_stream)
        wired.only_stream.end(End.ENDED, retry_ms=3_000)
        # Plain ASGI has no way to close a connection; it can only let go of it.
        await until(lambda: not (state.tasks if wired.adapter == "plain" else state.connections))


async def test_a_stop_ends_all_streams_with_retries_that_are_spread(wired: Wired) -> None:
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(wired.served.reading()) for _ in range(50)]
        async with asyncio.timeout(5):
            wired.running.server.should_exit = True
            sources = [await reader.rest() for reader in readers]
            await wired.running.task
        assert all(reader.ended for reader in readers)
        retries = [source.reconnection_ms or 0 for source in sources]
        assert all(1_000 <= retry <= 10_000 for retry in retries)
        assert len(set(retries)) > 40


async def test_a_stop_waits_for_no_reader_that_does_not_read(wired: Wired) -> None:
    async with wired.served.reading():
        await wired.publish_until_behind(wired.only_stream)
        async with asyncio.timeout(4):
            wired.running.server.should_exit = True
            await wired.running.task


async def test_while_stopping_browsers_are_sent_away_politely(wired: Wired) -> None:
    await wired.served.streams.drain()
    async with wired.served.reading() as browser, wired.served.reading(accept="*/*") as program:
        assert (browser.status, program.status) == (200, 503)
        assert (await browser.rest()).reconnection_ms


# --- detached --------------------------------------------------------------------------------------------------------


async def test_a_detached_stream_has_no_task_and_leaves_no_word_in_the_log(
    detached: Wired, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with detached.served.reading() as reader:
        await until(lambda: not detached.running.server.server_state.tasks)
        await detached.served.publish_numbers(1, 1)
        await reader.until_events(1)
        assert detached.running.server.server_state.connections  # so that a stop reaches it
    await until(lambda: not detached.running.server.server_state.connections)
    assert [record for record in caplog.records if record.name.startswith("uvicorn") and record.levelno > 20] == []


async def test_what_a_connection_keeps_for_requests_is_let_go(detached: Wired) -> None:
    async with detached.served.reading():
        [connection] = detached.running.server.server_state.connections
        assert isinstance(connection, StreamProtocol)
        kept: list[object] = [connection.scope, connection.cycle, connection.parser]
        assert kept == [None, None, None]


async def test_http_1_0_gets_no_chunks(detached: Wired) -> None:
    async with detached.served.reading(version="1.0") as reader:
        assert "transfer-encoding" not in reader.headers
        await detached.served.publish_numbers(1, 2)
        await reader.until_events(2)
        detached.only_stream.end(End.ENDED, retry_ms=3_000)
        await reader.rest()
        assert reader.numbers == [1, 2]


async def test_a_reader_that_says_anything_is_closed(detached: Wired) -> None:
    async with detached.served.reading() as reader:
        reader.writer.write(b"x")
        await until(lambda: len(detached.served.streams) == 0)


async def test_a_request_behind_a_stream_is_refused(detached: Wired) -> None:
    async with Connection(detached.served.port, PATH, secret=await detached.served.key()) as reader:
        reader.writer.write(reader.request)
        await reader.head()
        assert reader.status == 400
        await reader.reader.readuntil(b": arrw gateway")  # the second is the last on its connection
        assert len(detached.served.streams) == 1, "the first has given its place back"


async def test_little_waits_in_the_kernel_and_in_the_transport(detached: Wired) -> None:
    async with detached.served.reading():
        [connection] = detached.running.server.server_state.connections
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * BUFFER_BYTES  # Linux counts double
        assert connection.transport.get_write_buffer_limits()[1] == BUFFER_BYTES
        await detached.publish_until_behind(detached.only_stream)
        await detached.publish_big(256)
        assert connection.transport.get_write_buffer_size() < 4 * BUFFER_BYTES


async def test_a_progressing_reader_is_closed_only_when_it_is_outrun_for_long(detached: Wired) -> None:
    served = detached.served
    async with served.reading():
        stream = detached.only_stream
        await detached.publish_until_behind(stream)
        while stream.lag_bytes < OUTRUN_BYTES:
            await detached.publish_big(64)
        served.streams.tick()
        assert not is_in(State.ENDED, stream)
        served.seconds += PATIENCE_SECONDS
        stream.progressed_at = served.seconds
        served.streams.tick()
        assert is_in(State.ENDED, stream)


class HoldsTheStartBack:
    """As a compressing middleware does: the response starts with its first piece of body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held: list[Message] = []

        async def held_send(message: Message) -> None:
            held.append(message)
            if message["type"] == "http.response.body" and message["body"]:
                for one in held:
                    await send(one)
                held.clear()

        await self.app(scope, receive, held_send)


async def test_a_middleware_that_holds_the_start_back_is_not_gone_round() -> None:
    served = Served()
    served.app.asgi_handler = HoldsTheStartBack(served.app.asgi_handler)
    async with serving(served), served.reading() as reader:
        await served.publish_numbers(1, 2)
        await reader.until_events(2)


async def test_any_other_server_serves_streams_too() -> None:
    served = Served()
    async with serving(served, http="h11"), served.reading() as reader:
        await served.publish_numbers(1, 2)
        await reader.until_events(2)


# --- as a process ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_exits_with_0_whoever_is_connected(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.http.serve_streams", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            port = int(await process.stdout.readline())
        async with AsyncExitStack() as stack:
            readers = [await stack.enter_async_context(Connection(port, PATH, secret="secret-0")) for _ in range(100)]
            await stack.enter_async_context(Connection(port, HANGS))
            half_a_request = await stack.enter_async_context(Connection(port, PATH))
            half_a_request.writer.write(b"GET /v1/events HTTP/1.1\r\nhost: ")
            for reader in readers:
                await reader.head()
            os.kill(process.pid, number)
            async with asyncio.timeout(5):
                _, errors = await process.communicate()
            assert all([(await reader.rest()).reconnection_ms for reader in readers])
        assert process.returncode == 0, errors.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
