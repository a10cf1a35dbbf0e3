"""Streams on a running server, in reach of a test that fills what lies between it and its readers."""

from dataclasses import dataclass

from gateway.streams.stream import State, Stream
from tests.http.served import Running, Served

BIG = 16_000
"""Bytes of data of an event that is to fill buffers."""


@dataclass
class Wired:
    served: Served
    running: Running
    adapter: str = "detached"

    @property
    def only_stream(self) -> Stream:
        [stream] = self.served.streams.all()
        return stream

    async def publish_big(self, count: int) -> None:
        await self.served.publish(*[b'{"x":"%b"}' % (b"x" * BIG)] * count)

    async def publish_until_behind(self, stream: Stream) -> int:
        """Fill everything between here and a reader that does not read; answers how many events that took.

        Only when much waits is it sure that no kernel's buffer is still growing.
        """
        published = 0
        while stream.lag_bytes < 2**20:
            await self.publish_big(16)
            published += 16
        return published


def is_in(state: State, stream: Stream) -> bool:
    return stream.state is state
