"""The way to a WebSocket's reader: both adapters under the same tests, on both loops, and what uvicorn is taken for."""

import asyncio
import gc
import logging
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop

from gateway.http.server import MAX_MESSAGE_BYTES
from gateway.http.wire import SocketProtocol, StreamProtocol
from gateway.http.wire.detached import BUFFER_BYTES
from gateway.http.wire.sockets import DetachedSocket
from gateway.streams.sinks import End
from gateway.streams.stream import State
from gateway.streams.streaming import PATIENCE_SECONDS, STALLED_BYTES
from tests.http.served import Connection, Served, serving
from tests.http.sockets import PATH, SocketReader, listening
from tests.http.wired import Wired, is_in
from tests.until import until

LOOP_FACTORIES = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
ADAPTERS: dict[str, dict[str, Any]] = {"detached": {}, "plain": {"ws": "websockets-sansio"}}
MASK = b"\x00\x00\x00\x00"


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


async def a_live_one(stack: AsyncExitStack, wired: Wired, path: str = PATH) -> SocketReader:
    """One that has been told where it starts."""
    reader = await stack.enter_async_context(listening(wired.served, path))
    await reader.read()
    return reader


HANDSHAKE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "sec-websocket-version": "13",
}


async def raw(stack: AsyncExitStack, wired: Wired) -> Connection:
    """A socket that has shaken hands, and of which only bytes are known from there on."""
    connection = Connection(wired.served.port, PATH, secret=await wired.served.key(), headers=HANDSHAKE)
    await stack.enter_async_context(connection)
    await connection.head()
    assert connection.status == 101
    return connection


async def the_rest(connection: Connection) -> bytes:
    async with asyncio.timeout(10):
        return await connection.reader.read()


# --- both ways -------------------------------------------------------------------------------------------------------


async def test_what_is_published_arrives(wired: Wired) -> None:
    async with AsyncExitStack() as stack:
        reader = await a_live_one(stack, wired)
        await wired.served.publish_numbers(1, 3)
        await reader.until_events(3)
        assert (reader.numbers, reader.places[-1]) == ([1, 2, 3], "k3v9-3")


async def test_a_burst_arrives_whole_and_in_order(wired: Wired) -> None:
    async with AsyncExitStack() as stack:
        readers = [await a_live_one(stack, wired) for _ in range(5)]
        for start in range(0, 2_000, 200):
            await wired.served.publish_numbers(start, start + 199)
        for reader in readers:
            await reader.until_events(2_000)
            assert reader.numbers == list(range(2_000))


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
async def test_a_reader_that_leaves_is_noticed(wired: Wired, how: str) -> None:
    async with AsyncExitStack() as stack:
        reader = await a_live_one(stack, wired)
        transport = reader.connection.transport
        if how == "reset":
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        elif how == "half-close":
            transport.write_eof()
        else:
            await reader.connection.close()
        await until(lambda: len(wired.served.streams) == 0)
        assert wired.served.streams.hub.channels == 0
        await wired.served.publish_numbers(1, 1)  # nobody is there, and nothing breaks


@pytest.mark.parametrize(("why", "code"), [(End.ENDED, 1000), (End.DRAINED, 1012), (End.LOG_UNREADABLE, 1013)])
async def test_an_end_is_told_by_its_code(wired: Wired, why: End, code: int) -> None:
    async with AsyncExitStack() as stack:
        reader = await a_live_one(stack, wired)
        wired.only_stream.end(why, retry_ms=3_000)
        assert await reader.code() == code
        await until(lambda: not wired.running.server.server_state.connections)


async def test_what_a_reader_says_is_ignored(wired: Wired) -> None:
    async with AsyncExitStack() as stack:
        reader = await a_live_one(stack, wired)
        await reader.connection.send("ping")
        await reader.connection.send('{"type": "subscribe"}')
        await reader.connection.send(b"\xff" * MAX_MESSAGE_BYTES)
        await (await reader.connection.ping())  # what was said before has been read
        await wired.served.publish_numbers(1, 1)
        await reader.until_events(1)


async def test_what_a_reader_says_is_bounded() -> None:
    served = Served()
    async with serving(served), listening(served) as reader:
        await reader.read()
        await reader.connection.send("x" * (MAX_MESSAGE_BYTES + 1))
        assert await reader.code() == 1009
        assert len(served.streams) == 0


async def test_who_breaks_the_protocol_is_closed(wired: Wired) -> None:
    async with AsyncExitStack() as stack:
        connection = await raw(stack, wired)
        await until(lambda: len(wired.served.streams) == 1)
        connection.writer.write(b"\x81\x01x")  # a client has to mask
        assert struct.pack("!H", 1002) in await the_rest(connection)
        await until(lambda: len(wired.served.streams) == 0)


async def test_a_reader_that_stops_reading_costs_nothing_and_misses_nothing(wired: Wired) -> None:
    async with AsyncExitStack() as stack:
        other, slow = await a_live_one(stack, wired), await a_live_one(stack, wired)
        stream = wired.served.streams.all()[-1]
        published = await wired.publish_until_behind(stream)
        await wired.publish_big(64)
        await other.until_events(published + 64)
        await slow.until_events(published + 64)
        assert slow.places == [f"k3v9-{number}" for number in range(1, published + 65)]
        await until(lambda: stream.state is State.LIVE)


async def test_a_stalled_reader_is_told_1013_behind_what_was_on_its_way_and_comes_back(wired: Wired) -> None:
    served = wired.served
    async with AsyncExitStack() as stack:
        slow = await a_live_one(stack, wired)
        stream = wired.only_stream
        await wired.publish_until_behind(stream)
        while stream.lag_bytes < STALLED_BYTES:
            await wired.publish_big(16)
        served.seconds += PATIENCE_SECONDS
        served.streams.tick()
        assert is_in(State.ENDED, stream)
        assert served.streams.counts.ended == {"too_slow": 1}
        assert await slow.code() == 1013
        assert slow.places == [f"k3v9-{number}" for number in range(1, len(slow.places) + 1)]
        back = await stack.enter_async_context(listening(served, f"{PATH}?after={slow.places[-1]}"))
        missing = range(len(slow.places) + 1, served.tail.cursor + 1)
        await back.until_events(len(missing))
        assert back.places == [f"k3v9-{number}" for number in missing]


async def test_a_stop_tells_all_1012(wired: Wired) -> None:
    async with AsyncExitStack() as stack:
        readers = [await a_live_one(stack, wired) for _ in range(50)]
        async with asyncio.timeout(5):
            wired.running.server.should_exit = True
            assert {await reader.code() for reader in readers} == {1012}
            await wired.running.task


async def test_a_stop_waits_for_no_reader_that_does_not_read(wired: Wired) -> None:
    async with AsyncExitStack() as stack:
        await a_live_one(stack, wired)
        await wired.publish_until_behind(wired.only_stream)
        async with asyncio.timeout(4):
            wired.running.server.should_exit = True
            await wired.running.task


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_who_answers_pings_stays_and_who_does_not_is_closed(adapter: str) -> None:
    served = Served()
    pings = {"ws_ping_interval": 0.5, "ws_ping_timeout": 0.5}  # long enough for a machine that has much else to do
    async with serving(served, **ADAPTERS[adapter], **pings) as running, AsyncExitStack() as stack:
        wired = Wired(served, running, adapter)
        silent = await raw(stack, wired)
        reader = await stack.enter_async_context(listening(served))
        received = await the_rest(silent)
        assert b"\x89" in received, "it was pinged"
        assert struct.pack("!H", 1011) in received
        await until(lambda: len(served.streams) == 1)
        await served.publish_numbers(1, 1)
        await reader.until_events(1)


# --- detached --------------------------------------------------------------------------------------------------------


def connection_of(wired: Wired) -> DetachedSocket:
    [connection] = wired.running.server.server_state.connections
    assert isinstance(connection, DetachedSocket)
    return connection


async def test_a_detached_socket_has_no_task_and_leaves_no_word_in_the_log(
    detached: Wired, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with AsyncExitStack() as stack:
        reader = await a_live_one(stack, detached)
        await until(lambda: not detached.running.server.server_state.tasks)
        await detached.served.publish_numbers(1, 1)
        await reader.until_events(1)
        connection_of(detached)  # so that a stop reaches it
    await until(lambda: not detached.running.server.server_state.connections)
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_uvicorn_alone_ends_a_detached_socket_when_it_stops(detached: Wired) -> None:
    async with AsyncExitStack() as stack:
        reader = await a_live_one(stack, detached)
        connection_of(detached).shutdown()
        assert await reader.code() == 1012


async def test_what_a_connection_had_for_its_request_is_let_go_at_once(detached: Wired) -> None:
    """Without the garbage collector, which seldom runs while thousands of streams are open."""
    gc.collect()
    gc.disable()
    try:
        async with AsyncExitStack() as stack:
            await a_live_one(stack, detached)
            await until(lambda: not detached.running.server.server_state.tasks)
            kept = [each for each in gc.get_objects() if isinstance(each, SocketProtocol | StreamProtocol)]
            assert [type(each).__name__ for each in kept] == []
    finally:
        gc.enable()


async def test_little_waits_in_the_kernel_and_in_the_transport(detached: Wired) -> None:
    async with AsyncExitStack() as stack:
        await a_live_one(stack, detached)
        transport = connection_of(detached)._transport
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * BUFFER_BYTES  # Linux counts double
        assert transport.get_write_buffer_limits()[1] == BUFFER_BYTES
        await detached.publish_until_behind(detached.only_stream)
        await detached.publish_big(256)
        assert transport.get_write_buffer_size() < 4 * BUFFER_BYTES


async def test_pongs_do_not_pile_up_for_who_takes_nothing(detached: Wired) -> None:
    async with AsyncExitStack() as stack:
        connection = await raw(stack, detached)
        await until(lambda: len(detached.served.streams) == 1)
        await detached.publish_until_behind(detached.only_stream)
        transport = connection_of(detached)._transport
        waiting = transport.get_write_buffer_size()
        ping = b"\x89\xfd" + MASK + b"p" * 125
        for _ in range(200):
            connection.writer.write(ping * 100)
            await connection.writer.drain()
        connection.writer.write(b"\x88\x80" + MASK)  # and good-bye: all before it has been read
        await until(lambda: len(detached.served.streams) == 0)
        assert transport.get_write_buffer_size() < waiting + 2**19  # those of the last piece that was read, of 2.5 MB


async def test_who_reads_slowly_is_not_held_to_its_pongs(detached: Wired) -> None:
    """While much waits for it a ping would wait behind that; and what it takes shows that it is there."""
    async with AsyncExitStack() as stack:
        slow = await raw(stack, detached)  # it answers no ping at all
        await until(lambda: len(detached.served.streams) == 1)
        connection, stream = connection_of(detached), detached.only_stream
        connection._ping()
        await detached.publish_until_behind(stream)
        for _ in range(3):
            connection._ping()
        assert is_in(State.BEHIND, stream)
        async with asyncio.timeout(10):
            while not is_in(State.LIVE, stream):
                assert await slow.reader.read(2**16)
        connection._ping()
        assert is_in(State.LIVE, stream), "it has just taken something"
        connection._ping()
        assert is_in(State.ENDED, stream), "since then it has neither taken nor said anything"


async def test_a_socket_that_is_lost_during_its_handshake_takes_no_place(detached: Wired) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(20):
            connection = await raw(stack, detached)
            connection.writer.transport.abort()
        await until(lambda: len(detached.served.streams) == 0)


async def test_a_handshake_without_its_key_is_refused(detached: Wired) -> None:
    async with Connection(detached.served.port, PATH, headers={"connection": "Upgrade", "upgrade": "websocket"}) as bad:
        await bad.head()
        assert bad.status == 400  # no key of a handshake


async def test_a_word_during_the_handshake_leaves_the_connection_readable() -> None:
    """uvicorn stops reading once a message waits for the application; whoever takes the connection over reads on."""
    served = Served()
    served.keys.answers.clear()
    async with serving(served) as running, AsyncExitStack() as stack:
        connection = await stack.enter_async_context(
            Connection(served.port, PATH, secret=await served.key(), headers=HANDSHAKE)
        )
        await until(lambda: served.keys.lookups == 1)
        connection.writer.write(b"\x81\x81" + MASK + b"x")
        await until(
            lambda: any(getattr(each, "read_paused", False) for each in running.server.server_state.connections)
        )
        served.keys.answers.set()
        await connection.head()
        connection.writer.write(b"\x89\x80" + MASK)
        async with asyncio.timeout(5):
            await connection.reader.readuntil(b"\x8a\x00")  # the pong
