"""`growth`: what a log that is long already costs those who publish, resume, list, and are sent to.

empty ─▶ gateway ─▶ probes ──┐
                             ├─▶ each beside the other
filler ─▶ gateway ─▶ probes ─┘
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from urllib.parse import quote

from gateway.bench.api import Api
from gateway.bench.crew import Child, Crew, Target
from gateway.bench.figures import Reading, Usage, Value
from gateway.bench.ledger import account_by_count
from gateway.bench.marks import MARK
from gateway.bench.modes import publish
from gateway.bench.side import Load, Side
from gateway.bench.stage import (
    BATCH,
    BATCH_CONNECTIONS,
    PATIENCE_SECONDS,
    Place,
    Published,
    Sizes,
    compared,
    cpu_micros,
    flood,
    milliseconds,
    new_library,
    report_of,
    watched,
)
from gateway.bench.usage import Meter

EVENTS = 20_000
STREAMS = 100
MISSED = 1_000
LISTED = 50
EVENTS_A_LISTING = 100
"""Where fewer events are asked for, fewer pages are listed, too."""
PAGE = 500
"""Events in a page that is listed. As many are there for it in a log that was empty, too."""
SUBSCRIPTIONS = 10
OWED = 20
"""Of so many events one is fanned out, to each subscription."""
NOWHERE = "http://127.0.0.1:9/"
_PAGES: Mapping[str, str] = MappingProxyType(
    {
        "the newest": "/v1/events?page_size={size}",
        "of one library": "/v1/events?library_id={library}&page_size={size}",
        "from a cursor on": "/v1/events?after={cursor}&order=asc&page_size={size}",
        "from a time on": "/v1/events?since={since}&order=asc&page_size={size}",
    }
)


async def readings(crew: Crew, place: Place, sizes: Sizes) -> list[Reading]:
    """The same probes on an empty log, and on one that holds as many events as `--history` says."""
    place.must_be_own()
    filler, publisher, readers, asker = [await crew.hire(role) for role in ("filler", "publisher", "readers", "asker")]
    probes = _Probes(crew=crew, publisher=publisher, readers=readers, asker=asker, sizes=sizes)
    empty = await probes.on(await crew.database())
    url = await crew.database()
    await filler.ask("lengthen", url=url, library=new_library(), events=sizes.history, size=sizes.event_bytes)
    full = await probes.on(url)
    return [
        replace(found, name=f"{found.name}, in a log of {sizes.history:,} events")
        for found in map(compared, full, empty)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probes:
    crew: Crew
    publisher: Child
    readers: Child
    asker: Child
    sizes: Sizes

    async def on(self, url: str) -> list[Reading]:
        """Two gateways, one after the other: what was published to the first is in no memory of the second."""
        events, target = self.sizes.events or EVENTS, await self.crew.gateway(url)
        ways = publish.ways_of(events, self.sizes.connections)
        found = [await publish.reading(self.publisher, target, way, self.sizes) for way in ways]
        library = new_library()
        async with Api(target) as api:
            head = await api.head()
            missed = await flood(
                self.publisher, target, library, self.sizes, events=MISSED, batch=BATCH, connections=BATCH_CONNECTIONS
            )
        await target.end()
        target = await self.crew.gateway(url)
        found.append(await self._resume(target, library, head, missed))
        found.append(await self._list(target, library, head))
        found.append(await self._fan_out(target, max(1, events // OWED)))
        await target.end()
        return found

    async def _resume(self, target: Target, library: str, head: str, missed: Published) -> Reading:
        """Streams come back for events that only the log has."""
        streams = self.sizes.streams or STREAMS
        side = Side(publisher=self.publisher, readers=self.readers, target=target, sizes=self.sizes)
        await self.readers.ask("expect", events=MISSED, reading=1, streams=streams)
        meter, began = side.meter(), time.monotonic()
        await side.open(streams, f"/v1/libraries/{library}/events/stream", after=head)
        report = await report_of(self.readers, missed)
        usages = meter.usages()
        await side.leave()
        load = Load(streams=streams, published=replace(missed, began=began), report=report, usages=usages)
        return Reading(
            name=f"{streams} streams resume {MISSED} events back",
            values=(
                milliseconds("all have what they missed", report["last"] - began),
                *_micros(usages, load.frames, "frame"),
            ),
            usages=usages,
            ledger=load.ledger,
        )

    async def _list(self, target: Target, library: str, head: str) -> Reading:
        async with Api(target) as api:
            since = await api.accepted_after(head)
        times = max(1, min(LISTED, (self.sizes.events or EVENTS) // EVENTS_A_LISTING))
        meter, values, found = Meter(watched(target, self.asker)), list[Value](), list[int]()
        for name, query in _PAGES.items():
            answer = await self.asker.ask(
                "ask",
                host=target.host,
                port=target.port,
                key=target.key,
                path=query.format(size=PAGE, library=library, cursor=head, since=quote(since)),
                item=MARK.decode(),
                times=times,
            )
            found.append(answer["items"])
            values += [milliseconds(f"{name}, {rank}", answer[rank]) for rank in ("p50", "p99")]
        usages = meter.usages()
        return Reading(
            name=f"pages of {PAGE} events are listed",
            values=(*values, *_micros(usages, times * len(_PAGES), "page")),
            usages=usages,
            ledger=account_by_count(accepted=times * PAGE, refused=0, counts=found),
        )

    async def _fan_out(self, target: Target, events: int) -> Reading:
        """To subscriptions that are paused, so that nothing is sent: until each is owed all of it."""
        count, library = self.sizes.subscriptions or SUBSCRIPTIONS, new_library()
        async with Api(target) as api, api.subscribed([NOWHERE] * count, library, in_flight=1) as ids:
            await api.pause(ids)
            meter = Meter(watched(target, self.publisher))
            published = await flood(
                self.publisher, target, library, self.sizes, events=events, batch=BATCH, connections=BATCH_CONNECTIONS
            )
            taken = published.accepted.bit_count()
            owed_at, owed = await api.owed(ids, taken, patience=PATIENCE_SECONDS)
            usages = meter.usages()
        return Reading(
            name=f"{events} events are fanned out to {count} subscriptions",
            values=(
                Value(name="fanned out", unit="deliveries/s", value=count * taken / (owed_at - published.began)),
                *_micros(usages, count * taken, "delivery"),
            ),
            usages=usages,
            ledger=account_by_count(accepted=taken, refused=published.refused.bit_count(), counts=owed),
        )


def _micros(usages: Sequence[Usage], units: int, unit: str) -> tuple[Value, ...]:
    micros = cpu_micros(usages, units)
    return () if micros is None else (Value(name="gateway CPU", unit=f"µs/{unit}", value=micros),)
