"""`latency`: how long after an event was due it comes to a stream and to a receiver, at a rate that leaves room."""

import asyncio
from dataclasses import dataclass

from gateway.bench.api import Api
from gateway.bench.crew import Child, Crew, Target
from gateway.bench.figures import Reading
from gateway.bench.marks import BEGUN
from gateway.bench.stage import (
    PATIENCE_SECONDS,
    Place,
    Sizes,
    account_of_read,
    account_of_received,
    costs,
    milliseconds,
    new_library,
    pace,
    paced_events,
    report_of,
    the_gateway,
    watched,
)
from gateway.bench.usage import Meter

RATE = 200.0
IN_FLIGHT = 8
WARM_UP_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hands:
    publisher: Child
    receiver: Child
    readers: Child
    port: int


async def readings(crew: Crew, place: Place, sizes: Sizes) -> list[Reading]:
    """One stream and one subscription; nothing is compared."""
    publisher, receiver, readers = [await crew.hire(role) for role in ("publisher", "receiver", "readers")]
    port = (await receiver.ask("listen"))["port"]
    hands = _Hands(publisher=publisher, receiver=receiver, readers=readers, port=port)
    target = await the_gateway(crew, place)
    # The warm-up is the same, shorter, and what it finds is not kept.
    await _reading(hands, target, sizes, min(sizes.paced_seconds, WARM_UP_SECONDS))
    return [await _reading(hands, target, sizes, sizes.paced_seconds)]


async def _reading(hands: _Hands, target: Target, sizes: Sizes, seconds: float) -> Reading:
    library, rate = new_library(), sizes.rate or RATE
    events = paced_events(rate, seconds)
    path = f"/v1/libraries/{library}/events/stream"
    url = f"http://127.0.0.1:{hands.port}/0"
    async with Api(target) as api, api.subscribed([url], library, in_flight=IN_FLIGHT) as ids:
        await hands.readers.ask(
            "join", host=target.host, port=target.port, key=target.key, path=path, begun=BEGUN, streams=1
        )
        await hands.readers.ask("expect", events=events, reading=1)
        await hands.receiver.ask("expect", receivers=1, events=events, losing=sizes.losing)
        meter = Meter(watched(target, hands.publisher, hands.receiver, hands.readers))
        published = await pace(hands.publisher, target, library, sizes, rate=rate, seconds=seconds)
        streamed, received = await asyncio.gather(
            report_of(hands.readers, published),
            report_of(hands.receiver, published),
        )
        usages = meter.usages()
        _, dead = await api.settled(ids, published.accepted.bit_count(), patience=PATIENCE_SECONDS)
        await hands.readers.ask("leave")
    return Reading(
        name=f"{rate:g} events/s, from when each was due",
        values=(
            milliseconds("publish → stream, p50", streamed["p50"]),
            milliseconds("publish → stream, p99", streamed["p99"]),
            milliseconds("publish → receiver, p50", received["p50"]),
            milliseconds("publish → receiver, p99", received["p99"]),
            milliseconds("publish → answer, p50", published.answered_p50),
            milliseconds("publish → answer, p99", published.answered_p99),
            milliseconds("sent after it was due, p99", published.sent_late_p99),
            *costs(target, usages, events, "event", baseline=None),
        ),
        usages=usages,
        ledger=account_of_read(published, streamed) + account_of_received(published, received, dead=dead),
    )
