"""`paced`: events one by one to many streams, where each frame is a write of its own; beside nchan, if it is there."""

import asyncio
import os
import socket

from gateway.bench.crew import Crew, Target
from gateway.bench.figures import Reading
from gateway.bench.modes.stream import burst_reading
from gateway.bench.servers import NCHAN_BEGUN, nchan_command, nchan_configuration
from gateway.bench.side import Load, Side, paced_reading
from gateway.bench.stage import Place, Sizes, the_gateway

STREAMS = 2_000
BURST_STREAMS = 500
BURST_EVENTS = 4_000
RATE = 20.0
PORT_SECONDS = 10


async def readings(crew: Crew, place: Place, sizes: Sizes) -> list[Reading]:
    """One by one, and a burst to a quarter of the streams; nchan has one worker, and gets a burst one by one, too: it
    knows no other way."""
    publisher, readers = await crew.hire("publisher"), await crew.hire("readers")
    nchan = await _nchan(crew)
    beside: tuple[Load | None, Load | None] = (None, None)
    if nchan is not None:
        plain = Side(publisher=publisher, readers=readers, target=nchan, sizes=sizes, name="nchan", begun=NCHAN_BEGUN)
        beside = await _findings(plain, 1)
        await nchan.end()
    target = await the_gateway(crew, place)
    side = Side(publisher=publisher, readers=readers, target=target, sizes=sizes)
    paced, burst = await _findings(side, 100)
    return [paced_reading(paced, beside[0], sizes.rate or RATE), burst_reading(target, burst, beside[1])]


async def _findings(side: Side, batch: int) -> tuple[Load, Load]:
    streams = side.sizes.streams or STREAMS
    await side.warm_up()
    library = await side.join(streams)
    paced = await side.paced(streams, library, side.sizes.rate or RATE)
    await side.leave()
    few = min(streams, BURST_STREAMS)
    library = await side.join(few)
    burst = await side.burst(few, library, side.sizes.events or BURST_EVENTS, batch=batch)
    await side.leave()
    return paced, burst


async def _nchan(crew: Crew) -> Target | None:
    """It, listening; None where it is not installed."""
    if (found := nchan_command()) is None:
        return None
    nginx, module = found
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    directory = crew.directory("nchan")
    configuration = directory / "nginx.conf"
    configuration.write_text(nchan_configuration(module, directory, port))
    child = await crew.start(
        "nchan", (nginx, "-e", "stderr", "-p", str(directory), "-c", str(configuration)), os.environ
    )
    async with asyncio.timeout(PORT_SECONDS):
        while not await _listens(port):
            if child.process.returncode is not None:
                raise child.ended()
            await asyncio.sleep(0.05)
    return Target(host="127.0.0.1", port=port, key="none", pid=child.pid, child=child)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
