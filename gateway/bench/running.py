"""Runs modes, each so many times with everything new, and puts what they found together."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType

from gateway.bench import deliver, latency, publish, stream
from gateway.bench.crew import Crew
from gateway.bench.figures import Measurement, Reading, measurement
from gateway.bench.stage import Place, Sizes

Mode = Callable[[Crew, Place, Sizes], Awaitable[list[Reading]]]
MODES: Mapping[str, Mode] = MappingProxyType(
    {"publish": publish.readings, "stream": stream.readings, "deliver": deliver.readings, "latency": latency.readings}
)


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
            async with Crew(place.directory) as crew:
                repeated.append(await MODES[mode](crew, place, sizes))
        found += [measurement(mode, readings) for readings in zip(*repeated, strict=True)]
    return found
