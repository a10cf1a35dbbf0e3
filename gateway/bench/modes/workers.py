"""`workers`: several processes of one gateway on PostgreSQL, beside one."""

from dataclasses import replace

from gateway.bench.crew import Child, Crew, Target
from gateway.bench.errors import BenchError
from gateway.bench.figures import Reading
from gateway.bench.modes import deliver, publish, stream
from gateway.bench.side import Side
from gateway.bench.stage import Place, Sizes, compared

EVENTS = 10_000
SUBSCRIPTIONS = 8
"""Each has a lane, and a lane one process at a time: with a single one there would be nothing to share."""
WARM_UP = 10


async def readings(crew: Crew, place: Place, sizes: Sizes) -> list[Reading]:
    """Publishing, a burst to streams, and deliveries; the baseline is the same with one process."""
    place.must_be_own()
    if place.server is None:
        raise BenchError("processes share a PostgreSQL: name one with --server")
    publisher, readers, receiver = [await crew.hire(role) for role in ("publisher", "readers", "receiver")]
    port = (await receiver.ask("listen"))["port"]
    sizes = replace(sizes, subscriptions=sizes.subscriptions or SUBSCRIPTIONS)
    loads = _Loads(publisher, readers, receiver, port, sizes)
    one = await loads.on(await crew.gateway())
    several = await loads.on(await crew.gateway(workers=sizes.workers))
    return [compared(found, beside) for found, beside in zip(several, one, strict=True)]


class _Loads:
    def __init__(self, publisher: Child, readers: Child, receiver: Child, port: int, sizes: Sizes) -> None:
        self._publisher, self._readers, self._receiver = publisher, readers, receiver
        self._port = port
        self._sizes = sizes

    async def on(self, target: Target) -> list[Reading]:
        events = self._sizes.events or EVENTS
        found = [
            await publish.reading(self._publisher, target, way, self._sizes)
            for way in publish.ways_of(events, self._sizes.connections)
        ]
        found.append(await self._burst(target, events))
        await self._deliver(target, max(1, events // WARM_UP))
        found.append(await self._deliver(target, events))
        await target.end()
        return found

    async def _burst(self, target: Target, events: int) -> Reading:
        side = Side(publisher=self._publisher, readers=self._readers, target=target, sizes=self._sizes)
        streams = self._sizes.streams or stream.STREAMS
        await side.warm_up()
        library = await side.join(streams)
        burst = await side.burst(streams, library, events)
        await side.leave()
        return stream.burst_reading(target, burst, None)

    async def _deliver(self, target: Target, events: int) -> Reading:
        return await deliver.reading(self._publisher, self._receiver, self._port, target, self._sizes, events)
