"""Runs modes, each so many times with everything new, and puts what they found together."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType

from gateway.bench.crew import Crew
from gateway.bench.figures import Measurement, Reading, measurement
from gateway.bench.modes import (
    backlog,
    deliver,
    growth,
    latency,
    paced,
    publish,
    selective,
    statements,
    storm,
    stream,
    workers,
)
from gateway.bench.stage import Place, Sizes

Mode = Callable[[Crew, Place, Sizes], Awaitable[list[Reading]]]
MODES: Mapping[str, Mode] = MappingProxyType(
    {
        "publish": publish.readings,
        "stream": stream.readings,
        "deliver": deliver.readings,
        "latency": latency.readings,
        "paced": paced.readings,
        "selective": selective.readings,
        "storm": storm.readings,
        "statements": statements.readings,
        "backlog": backlog.readings,
        "growth": growth.readings,
        "workers": workers.readings,
    }
)
SHORT = ("publish", "stream", "deliver", "latency", "paced", "selective", "storm", "statements")
"""Those that take a minute or so, and need nothing that is not here."""


async def run(
    modes: Sequence[str], place: Place, sizes: Sizes, *, repeats: int, tell: Callable[[str], None]
) -> list[Measurement]:
    """Every measurement of *modes*. *tell* is told what is done now.

    Raises:
        BenchError: one could not be made.
    """
    found = list[Measurement]()
    for mode in modes:
        repeated = list[list[Reading]]()
        for number in range(1, repeats + 1):
            tell(f"{mode}, {number} of {repeats}")
            async with Crew(place.directory, place.server) as crew:
                repeated.append(await MODES[mode](crew, place, sizes))
        found += [measurement(mode, readings) for readings in zip(*repeated, strict=True)]
    return found
