"""`selective`: many streams that each read a library of their own. An event for one of them must not cost for all."""

from gateway.bench.crew import Child, Crew, Target
from gateway.bench.figures import Reading
from gateway.bench.side import Load, Side
from gateway.bench.stage import Place, Sizes, compared, costs, milliseconds, pace, paced_events, the_gateway

STREAMS = 10_000
FEW = 100
"""Of so many streams there is one in the run that it is compared to."""
RATE = 1_000.0
BATCH = 10
"""Events in one request, each of another library: by themselves it would be publishing that is measured."""
WARM_UP_SECONDS = 1.0


async def readings(crew: Crew, place: Place, sizes: Sizes) -> list[Reading]:
    """Beside the same events to few streams, on a gateway of their own."""
    streams = sizes.streams or STREAMS
    publisher, readers = await crew.hire("publisher"), await crew.hire("readers")
    few = await _reading(publisher, readers, await the_gateway(crew, place), sizes, max(1, streams // FEW))
    many = await _reading(publisher, readers, await the_gateway(crew, place), sizes, streams)
    return [compared(many, few)]


async def _reading(publisher: Child, readers: Child, target: Target, sizes: Sizes, streams: int) -> Reading:
    side = Side(publisher=publisher, readers=readers, target=target, sizes=sizes)
    rate = sizes.rate or RATE
    library = await side.join_each(streams)
    await _load(side, library, streams, rate, min(sizes.paced_seconds, WARM_UP_SECONDS))
    load = await _load(side, library, streams, rate, sizes.paced_seconds)
    found = costs(target, load.usages, load.frames, "event", baseline=None)
    await side.leave()
    await target.end()
    return Reading(
        name=f"{rate:g} events/s in tens, each for one of {streams} streams",
        values=(
            *found,
            milliseconds("publish → stream, p50", load.report["p50"]),
            milliseconds("publish → stream, p99", load.report["p99"]),
            milliseconds("sent after it was due, p99", load.published.sent_late_p99),
        ),
        usages=load.usages,
        ledger=load.ledger,
    )


async def _load(side: Side, library: str, streams: int, rate: float, seconds: float) -> Load:
    work = pace(
        side.publisher, side.target, library, side.sizes, rate=rate, seconds=seconds, batch=BATCH, libraries=streams
    )
    return await side.load(streams, paced_events(rate, seconds), streams, work, spread=True)
