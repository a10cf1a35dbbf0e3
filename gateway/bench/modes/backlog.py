"""`backlog`: a gateway that starts with many deliveries owed already, beside one that owes none.

filler ─▶ the log, subscriptions, deliveries, offline ─▶ gateway starts ─▶ sends all of it ─▶ all settled
"""

from dataclasses import replace

from gateway.bench.api import Api
from gateway.bench.crew import Child, Crew, Target
from gateway.bench.figures import Reading, Value
from gateway.bench.stage import (
    BATCH,
    BATCH_CONNECTIONS,
    PATIENCE_SECONDS,
    Place,
    Published,
    Sizes,
    account_of_received,
    compared,
    cpu_micros,
    flood,
    new_library,
    watched,
)
from gateway.bench.usage import Meter, most_resident_bytes

SUBSCRIPTIONS = 1_000
EVENTS = 1_000
"""Each owed to each subscription."""
IN_FLIGHT = 8
NONE = 10
"""Of so many events one is published to the gateway that owes nothing; of as many of these one in its warm-up."""
SLOWEST = 500
"""Deliveries a second: whoever sends fewer is not waited for to the end."""
MOST = "gateway memory, at most"


async def readings(crew: Crew, place: Place, sizes: Sizes) -> list[Reading]:
    """How long it takes to start, how fast it sends, and what it holds in memory."""
    place.must_be_own()
    filler, publisher, receiver = [await crew.hire(role) for role in ("filler", "publisher", "receiver")]
    port = (await receiver.ask("listen"))["port"]
    bench = _Bench(crew, filler, publisher, receiver, port, sizes)
    none = await bench.none()
    return [_with_growth(compared(await bench.owed(), none))]


class _Bench:
    def __init__(self, crew: Crew, filler: Child, publisher: Child, receiver: Child, port: int, sizes: Sizes) -> None:
        self._crew = crew
        self._filler, self._publisher, self._receiver = filler, publisher, receiver
        self._sizes = sizes
        self._subscriptions = sizes.subscriptions or SUBSCRIPTIONS
        self._events = sizes.events or EVENTS
        self._urls = [f"http://127.0.0.1:{port}/{place}" for place in range(self._subscriptions)]

    async def none(self) -> Reading:
        """As many subscriptions, to which nothing is owed: events are published, and sent as they come."""
        url, library, ids = await self._subscribed()
        target = await self._crew.gateway(url)
        some = max(1, self._events // NONE)
        warm_up = max(1, some // NONE)
        await self._publish(target, library, ids, warm_up, before=0)
        reading = await self._publish(target, library, ids, some, before=warm_up)
        await target.end()
        return reading

    async def owed(self) -> Reading:
        """All of it is owed before the gateway is there."""
        url, library, ids = await self._subscribed()
        await self._filler.ask(
            "owe", url=url, library=library, ids=ids, events=self._events, size=self._sizes.event_bytes
        )
        await self._expect(self._events)
        target = await self._crew.gateway(url)
        meter = Meter(watched(target, self._receiver))
        return await self._reading(target, ids, Published.before(self._events), meter, before=0)

    async def _subscribed(self) -> tuple[str, str, list[str]]:
        url, library = await self._crew.database(), new_library()
        answer = await self._filler.ask(
            "subscribe", url=url, library=library, receivers=self._urls, in_flight=IN_FLIGHT
        )
        return url, library, answer["ids"]

    async def _expect(self, events: int) -> None:
        await self._receiver.ask("expect", receivers=self._subscriptions, events=events, losing=self._sizes.losing)

    async def _publish(self, target: Target, library: str, ids: list[str], events: int, *, before: int) -> Reading:
        await self._expect(events)
        meter = Meter(watched(target, self._receiver))
        published = await flood(
            self._publisher, target, library, self._sizes, events=events, batch=BATCH, connections=BATCH_CONNECTIONS
        )
        return await self._reading(target, ids, published, meter, before=before)

    async def _reading(
        self, target: Target, ids: list[str], published: Published, meter: Meter, *, before: int
    ) -> Reading:
        """What comes of *published*, where *before* events were settled before."""
        assert target.pid is not None, "a gateway of our own"  # noqa: S101 - it was started here
        assert target.started_in is not None  # noqa: S101
        events = published.accepted.bit_count()
        made = events * self._subscriptions
        patience = PATIENCE_SECONDS + made / SLOWEST
        report = await self._receiver.ask("report", refused=published.refused.bit_count(), patience=patience)
        async with Api(target) as api:
            settled_at = await api.delivered((before + events) * self._subscriptions, patience=patience)
            usages = meter.usages()
            _, dead = await api.settled(ids, before + events, patience=patience)
        most = most_resident_bytes(target.pid)
        micros = cpu_micros(usages, made)
        return Reading(
            name=f"{self._events} events owed to each of {self._subscriptions} subscriptions",
            values=(
                Value(name="started", unit="s", value=target.started_in),
                Value(name="settled", unit="deliveries/s", value=made / (settled_at - report["first"])),
                *(() if micros is None else (Value(name="gateway CPU", unit="µs/delivery", value=micros),)),
                *(() if most is None else (Value(name=MOST, unit="MiB", value=most / 2**20),)),
            ),
            usages=usages,
            ledger=account_of_received(published, report, dead=dead),
        )


def _with_growth(reading: Reading) -> Reading:
    """What it takes of memory beyond one that owes nothing is a figure of its own."""
    more = [
        Value(name="memory beyond that with none", unit="MiB", value=value.value - value.baseline)
        for value in reading.values
        if value.name == MOST and value.baseline is not None
    ]
    return replace(reading, values=(*reading.values, *more))
