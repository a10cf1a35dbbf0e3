"""`stream`: what it takes to hold many streams of one filter open, and to write each event to all of them."""

from gateway.bench.crew import Crew, Target
from gateway.bench.figures import Reading, Value
from gateway.bench.marks import BASELINE_BEGUN
from gateway.bench.side import Load, Side, paced_reading
from gateway.bench.stage import Place, Sizes, costs, the_gateway

EVENTS = 2_000
STREAMS = 500
RATE = 20.0
BASELINE = 20
"""Of so many events of a burst the baseline gets one: it takes longer."""


async def readings(crew: Crew, place: Place, sizes: Sizes) -> list[Reading]:
    """Idle, a burst, and a steady trickle; the baseline is Litestar's `ServerSentEvent`."""
    events = sizes.events or EVENTS
    publisher, readers = await crew.hire("publisher"), await crew.hire("readers")
    plain, beside = await crew.baseline("plain_sse")
    baselines = await _findings(
        Side(
            publisher=publisher,
            readers=readers,
            target=beside,
            sizes=sizes,
            name="ServerSentEvent",
            begun=BASELINE_BEGUN,
        ),
        max(1, events // BASELINE),
    )
    await plain.end()
    target = await the_gateway(crew, place)
    found = await _findings(Side(publisher=publisher, readers=readers, target=target, sizes=sizes), events)
    return [
        burst_reading(target, found[1], baselines[1], _idle_values(found[0], baselines[0])),
        paced_reading(found[2], baselines[2], sizes.rate or RATE),
    ]


async def _findings(side: Side, events: int) -> tuple[float | None, Load, Load]:
    """Bytes of memory for an idle stream, a burst of *events*, and events one by one."""
    streams = side.sizes.streams or STREAMS
    await side.warm_up()
    library, idle = await side.idle(streams)
    burst = await side.burst(streams, library, events)
    await side.leave()
    library = await side.join(streams)
    paced = await side.paced(streams, library, side.sizes.rate or RATE)
    await side.leave()
    return idle, burst, paced


def _idle_values(idle: float | None, baseline: float | None) -> tuple[Value, ...]:
    if idle is None:
        return ()
    beside = None if baseline is None else baseline / 2**10
    return (Value(name="gateway memory, idle", unit="KiB/stream", value=idle / 2**10, baseline=beside),)


def burst_reading(target: Target, burst: Load, beside: Load | None, more: tuple[Value, ...] = ()) -> Reading:
    """How many frames a second, and what a frame cost."""
    return Reading(
        name=f"a burst to {burst.streams} streams",
        values=(
            Value(
                name="written",
                unit="frames/s",
                value=burst.frames_per_second,
                baseline=None if beside is None else beside.frames_per_second,
            ),
            *more,
            *costs(
                target,
                burst.usages,
                burst.frames,
                "frame",
                baseline=None if beside is None else beside.micros_per_frame,
            ),
        ),
        usages=burst.usages + (beside.usages if beside else ()),
        ledger=burst.ledger,
    )
