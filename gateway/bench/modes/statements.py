"""`statements`: how many SQL statements an event and its delivery cost, from its publishing to its settling."""

from gateway.bench.api import Api
from gateway.bench.crew import Child, Crew, Target
from gateway.bench.figures import Reading, Value
from gateway.bench.modes.publish import Way, ways_of
from gateway.bench.stage import (
    PATIENCE_SECONDS,
    Place,
    Sizes,
    account_of_received,
    costs,
    flood,
    new_library,
    report_of,
    watched,
)
from gateway.bench.usage import Meter

EVENTS = 10_000
IN_FLIGHT = 64
WARM_UP = 10


async def readings(crew: Crew, place: Place, sizes: Sizes) -> list[Reading]:
    """In batches, and one by one, each to one subscription. One that is sent for many rows at once is one."""
    place.must_be_own()
    publisher, receiver = await crew.hire("publisher"), await crew.hire("receiver")
    port = (await receiver.ask("listen"))["port"]
    target = await crew.gateway(counted=True)
    found = list[Reading]()
    for way in ways_of(sizes.events or EVENTS, sizes.connections):
        await _reading(publisher, receiver, port, target, sizes, way, max(1, way.events // WARM_UP))
        found.append(await _reading(publisher, receiver, port, target, sizes, way, way.events))
    return found


async def _reading(
    publisher: Child, receiver: Child, port: int, target: Target, sizes: Sizes, way: Way, events: int
) -> Reading:
    assert target.child is not None, "a gateway of our own"  # noqa: S101 - it was started here
    library, url = new_library(), f"http://127.0.0.1:{port}/0"
    async with Api(target) as api, api.subscribed([url], library, in_flight=IN_FLIGHT) as ids:
        already = await api.total_delivered()
        await receiver.ask("expect", receivers=1, events=events, losing=sizes.losing)
        meter, before = Meter(watched(target, publisher, receiver)), await target.child.statements()
        published = await flood(
            publisher, target, library, sizes, events=events, batch=way.batch, connections=way.connections
        )
        report = await report_of(receiver, published)
        taken = published.accepted.bit_count()
        settled_at = await api.delivered(already + taken, patience=PATIENCE_SECONDS)
        statements, usages = await target.child.statements() - before, meter.usages()
        _, dead = await api.settled(ids, taken, patience=PATIENCE_SECONDS)
    return Reading(
        name=way.name,
        values=(
            Value(name="for an event and its delivery", unit="statements", value=statements / taken),
            Value(name="settled", unit="deliveries/s", value=taken / (settled_at - published.began)),
            *costs(target, usages, taken, "event", baseline=None),
        ),
        usages=usages,
        ledger=account_of_received(published, report, dead=dead),
    )
