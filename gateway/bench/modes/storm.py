"""`storm`: many streams that come back at once, each with the same events to catch up on.

connect ─▶ (begun) ─▶ the past ─▶ one more event, that is published once all have the past ─▶ all are live again
"""

import time
from dataclasses import dataclass, replace
from typing import Any

from gateway.bench.api import Api
from gateway.bench.crew import Crew, Target
from gateway.bench.figures import Reading, Value
from gateway.bench.ledger import Ledger, account_by_count
from gateway.bench.side import Side
from gateway.bench.stage import (
    Place,
    Published,
    Sizes,
    account_of_read,
    costs,
    new_library,
    report_of,
    the_gateway,
)
from gateway.bench.usage import most_resident_bytes

STREAMS = 5_000
EVENTS = 1_000
AT_ONCE = 1_000
"""So many at most are being opened: the kernel has no room for more to wait, and drops what comes then."""


async def readings(crew: Crew, place: Place, sizes: Sizes) -> list[Reading]:
    """Beside as many fresh streams. What was missed is still in memory; then, of a gateway of our own, it was started
    anew, and only the log has it."""
    publisher, readers = await crew.hire("publisher"), await crew.hire("readers")
    url = None if place.url is not None else await crew.database()
    target = await the_gateway(crew, place) if url is None else await crew.gateway(url)
    side = Side(publisher=publisher, readers=readers, target=target, sizes=sizes)
    await side.warm_up()
    found = [await _come_back(side, await _fresh(side), await _missed(side), "what is in memory")]
    if url is not None:
        missed = await _missed(side)
        await target.end()
        side = replace(side, target=await crew.gateway(url))
        found.append(await _come_back(side, await _fresh(side), missed, "what only the log has"))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Missed:
    """What streams of *library* come back for that have seen all up to the cursor *after*."""

    library: str
    after: str
    published: Published


async def _missed(side: Side) -> _Missed:
    async with Api(side.target) as api:
        head = await api.head()
    library = new_library()
    return _Missed(library=library, after=head, published=await side.flood(library, side.sizes.events or EVENTS))


async def _fresh(side: Side) -> float:
    """How many seconds it takes to open as many that have seen nothing."""
    streams = side.sizes.streams or STREAMS
    seconds = await side.open(streams, f"/v1/libraries/{new_library()}/events/stream", at_once=AT_ONCE)
    await side.leave()
    return seconds


async def _come_back(side: Side, fresh: float, missed: _Missed, where: str) -> Reading:
    streams, events = side.sizes.streams or STREAMS, missed.published.accepted.bit_length()
    path = f"/v1/libraries/{missed.library}/events/stream"
    await side.readers.ask("expect", events=events, reading=1, streams=streams)
    meter, began = side.meter(), time.monotonic()
    begun = await side.open(streams, path, after=missed.after, at_once=AT_ONCE)
    report = await report_of(side.readers, missed.published)
    caught_up = float(report["last"]) - began
    # That they are live, an event shows that was not there before.
    await side.readers.ask("expect", events=1, reading=1)
    live = await side.flood(missed.library, 1)
    news = await report_of(side.readers, live)
    live_again = float(news["last"]) - began
    usages = meter.usages()
    await side.leave()
    return Reading(
        name=f"{streams} streams come back for {events} events, {where}",
        values=(
            Value(name="all live again", unit="s", value=live_again, baseline=fresh),
            Value(name="all have what they missed", unit="s", value=caught_up),
            Value(name="all have begun", unit="s", value=begun, baseline=fresh),
            *costs(side.target, usages, streams * events, "frame", baseline=None),
            *_most(side.target),
        ),
        usages=usages,
        ledger=_ledger(missed.published, report) + _ledger(live, news),
    )


def _ledger(published: Published, report: dict[str, Any]) -> Ledger:
    return account_of_read(published, report) + account_by_count(
        accepted=published.accepted.bit_count(), refused=published.refused.bit_count(), counts=report["counts"]
    )


def _most(target: Target) -> tuple[Value, ...]:
    most = None if target.pid is None else most_resident_bytes(target.pid)
    return () if most is None else (Value(name="gateway memory, at most", unit="MiB", value=most / 2**20),)
