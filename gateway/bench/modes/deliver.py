"""`deliver`: how many deliveries a second, from the first event published to the last attempt stored."""

from gateway.bench.api import Api
from gateway.bench.crew import Child, Crew, Target
from gateway.bench.figures import Reading, Value
from gateway.bench.stage import (
    BATCH,
    BATCH_CONNECTIONS,
    NOTHING,
    PATIENCE_SECONDS,
    Beside,
    Place,
    Sizes,
    account_of_received,
    costs,
    flood,
    new_library,
    report_of,
    the_gateway,
    watched,
)
from gateway.bench.usage import Meter, Watched

EVENTS = 10_000
SUBSCRIPTIONS = 1
IN_FLIGHT = 64
BASELINE = 4
"""Of so many deliveries the baseline makes one: it takes longer."""
WARM_UP = 10


async def readings(crew: Crew, place: Place, sizes: Sizes) -> list[Reading]:
    """A backlog for each of the subscriptions; the baseline is plain httpx with as many requests in flight."""
    events = sizes.events or EVENTS
    publisher, receiver = await crew.hire("publisher"), await crew.hire("receiver")
    port = (await receiver.ask("listen"))["port"]
    beside = await _baseline(crew, receiver, port, sizes, max(1, events // BASELINE))
    target = await the_gateway(crew, place)
    # The warm-up is the same, smaller, and what it finds is not kept.
    await reading(publisher, receiver, port, target, sizes, max(1, events // WARM_UP), beside)
    return [await reading(publisher, receiver, port, target, sizes, events, beside)]


async def _baseline(crew: Crew, receiver: Child, port: int, sizes: Sizes, events: int) -> Beside:
    sender = await crew.hire("plain_sender")
    url, library = f"http://127.0.0.1:{port}/0", new_library()

    async def send(count: int) -> float:
        await receiver.ask("expect", receivers=1, events=count)
        answer = await sender.ask(
            "send", url=url, events=count, in_flight=IN_FLIGHT, library=library, size=sizes.event_bytes
        )
        return count / float(answer["seconds"])

    await send(max(1, events // WARM_UP))
    meter = Meter(
        [
            Watched(name="httpx", pid=sender.pid, is_load=False),
            Watched(name="receiver (httpx)", pid=receiver.pid, is_load=True),
        ]
    )
    beside = Beside(rate=await send(events), units=events, usages=meter.usages())
    await sender.end()
    return beside


async def reading(
    publisher: Child,
    receiver: Child,
    port: int,
    target: Target,
    sizes: Sizes,
    events: int,
    beside: Beside = NOTHING,
) -> Reading:
    """A backlog of *events* for each of the subscriptions, from the first published to the last settled."""
    library, count = new_library(), sizes.subscriptions or SUBSCRIPTIONS
    urls = [f"http://127.0.0.1:{port}/{place}" for place in range(count)]
    async with Api(target) as api, api.subscribed(urls, library, in_flight=IN_FLIGHT) as ids:
        await receiver.ask("expect", receivers=count, events=events, losing=sizes.losing)
        meter = Meter(watched(target, publisher, receiver))
        published = await flood(
            publisher, target, library, sizes, events=events, batch=BATCH, connections=BATCH_CONNECTIONS
        )
        report = await report_of(receiver, published)
        settled_at, dead = await api.settled(ids, published.accepted.bit_count(), patience=PATIENCE_SECONDS)
        usages = meter.usages()
    made = count * published.accepted.bit_count()
    rate = made / (settled_at - published.began)
    return Reading(
        name=f"a backlog for {count} subscription{'' if count == 1 else 's'}, {IN_FLIGHT} in flight each",
        values=(
            Value(name="settled", unit="deliveries/s", value=rate, baseline=beside.rate),
            *costs(target, usages, made, "delivery", baseline=beside.micros),
        ),
        usages=usages + beside.usages,
        ledger=account_of_received(published, report, dead=dead),
    )
