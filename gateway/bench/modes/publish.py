"""`publish`: how many events a second are answered 202, which is: are on disk."""

from dataclasses import dataclass

from gateway.bench.api import Api
from gateway.bench.crew import Child, Crew, Target
from gateway.bench.figures import Reading, Value
from gateway.bench.ledger import account
from gateway.bench.stage import (
    BATCH,
    BATCH_CONNECTIONS,
    NOTHING,
    Beside,
    Place,
    Published,
    Sizes,
    costs,
    flood,
    milliseconds,
    new_library,
    the_gateway,
    watched,
)
from gateway.bench.usage import Meter

EVENTS = 20_000
SINGLES = 4
"""Of so many events one is published by itself: these take longer."""
WARM_UP = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    name: str
    batch: int
    connections: int
    events: int


async def readings(crew: Crew, place: Place, sizes: Sizes) -> list[Reading]:
    """In batches, and one by one; the baseline is the same route without storage."""
    ways = ways_of(sizes.events or EVENTS, sizes.connections)
    publisher = await crew.hire("publisher")
    plain, beside = await crew.baseline("plain_publish")
    baselines = [await _baseline(publisher, beside, way, sizes) for way in ways]
    await plain.end()
    target = await the_gateway(crew, place)
    return [
        await reading(publisher, target, way, sizes, baseline) for way, baseline in zip(ways, baselines, strict=True)
    ]


def ways_of(events: int, connections: int) -> tuple[Way, Way]:
    return (
        Way(
            name=f"batches of {BATCH} over {BATCH_CONNECTIONS} connections",
            batch=BATCH,
            connections=BATCH_CONNECTIONS,
            events=events,
        ),
        Way(
            name=f"single events over {connections} connections",
            batch=1,
            connections=connections,
            events=max(1, events // SINGLES),
        ),
    )


async def _baseline(publisher: Child, beside: Target, way: Way, sizes: Sizes) -> Beside:
    await _flood(publisher, beside, way, sizes, new_library(), max(1, way.events // WARM_UP))
    meter = Meter(watched(beside, publisher, beside="without storage"))
    published = await _flood(publisher, beside, way, sizes, new_library(), way.events)
    return Beside(rate=way.events / published.seconds, units=way.events, usages=meter.usages())


async def reading(publisher: Child, target: Target, way: Way, sizes: Sizes, beside: Beside = NOTHING) -> Reading:
    """*way*, with a warm-up; what was answered is looked up in the log."""
    await _flood(publisher, target, way, sizes, new_library(), max(1, way.events // WARM_UP))
    async with Api(target) as api:
        head = await api.head()
    library, meter = new_library(), Meter(watched(target, publisher))
    published = await _flood(publisher, target, way, sizes, library, way.events)
    usages = meter.usages()
    async with Api(target) as api:
        came, again = await api.logged(library, way.events, after=head)
    taken = published.accepted.bit_count()
    return Reading(
        name=way.name,
        values=(
            Value(name="published", unit="events/s", value=taken / published.seconds, baseline=beside.rate),
            milliseconds("answered after, p99", published.answered_p99),
            *costs(target, usages, way.events, "event", baseline=beside.micros),
        ),
        usages=usages + beside.usages,
        ledger=account(accepted=published.accepted, refused=published.refused, came=came, strange=again),
    )


async def _flood(publisher: Child, target: Target, way: Way, sizes: Sizes, library: str, events: int) -> Published:
    return await flood(publisher, target, library, sizes, events=events, batch=way.batch, connections=way.connections)
