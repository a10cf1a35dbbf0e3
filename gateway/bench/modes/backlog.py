"""`backlog`: a gateway that starts with many deliveries owed already, beside one that owes none.

filler ─▶ the log, subscriptions, deliveries, offline ─▶ gateway starts ─▶ sends for a while ─▶ ends ─▶ its books
"""

import time
from dataclasses import dataclass, replace

from gateway.bench.api import Api
from gateway.bench.crew import Child, Crew, Target
from gateway.bench.figures import Reading, Usage, Value
from gateway.bench.ledger import Books, Ledger, account_of_books
from gateway.bench.stage import (
    BATCH,
    PATIENCE_SECONDS,
    Place,
    Sizes,
    account_of_received,
    compared,
    cpu_micros,
    flood,
    new_library,
    report_of,
    watched,
)
from gateway.bench.usage import Meter, most_resident_bytes

SUBSCRIPTIONS = 1_000
EVENTS = 1_000
"""Each owed to each subscription."""
IN_FLIGHT = 8
SECONDS = 60.0
"""For so long the backlog is sent from; it need not come to its end."""
NONE = 100
"""Of so many events one is published to the gateway that owes nothing."""
WARM_UP_EVENTS = 1
MOST = "gateway memory, at most"


async def readings(crew: Crew, place: Place, sizes: Sizes) -> list[Reading]:
    """How long it takes to start, how fast it sends, and what it holds in memory."""
    place.must_be_own()
    filler, publisher, receiver = [await crew.hire(role) for role in ("filler", "publisher", "receiver")]
    bench = _Bench(
        crew=crew,
        filler=filler,
        publisher=publisher,
        receiver=receiver,
        port=(await receiver.ask("listen"))["port"],
        sizes=sizes,
    )
    none = await bench.none()
    return [_with_growth(compared(await bench.owed(), none))]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Filled:
    """A database with subscriptions to *library*."""

    url: str
    library: str
    ids: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    crew: Crew
    filler: Child
    publisher: Child
    receiver: Child
    port: int
    sizes: Sizes

    @property
    def subscriptions(self) -> int:
        return self.sizes.subscriptions or SUBSCRIPTIONS

    @property
    def events(self) -> int:
        return self.sizes.events or EVENTS

    async def none(self) -> Reading:
        """As many subscriptions, to which nothing is owed: a few events are published, and sent as they come."""
        filled = await self._subscribed()
        target = await self.crew.gateway(filled.url)
        await self._publish(target, filled, WARM_UP_EVENTS, before=0)
        rate, usages, ledger = await self._publish(target, filled, max(1, self.events // NONE), before=WARM_UP_EVENTS)
        most = _most(target)
        await target.end()
        return self._reading(target, rate, usages, ledger, ledger.delivered, most)

    async def owed(self) -> Reading:
        """All of it is owed before the gateway is there."""
        filled = await self._subscribed()
        await self.filler.ask(
            "owe",
            url=filled.url,
            library=filled.library,
            ids=filled.ids,
            events=self.events,
            size=self.sizes.event_bytes,
        )
        await self._expect(self.events)
        target = await self.crew.gateway(filled.url)
        async with Api(target) as api:
            first, began = await api.total_delivered(), time.monotonic()
            meter = Meter(watched(target, self.receiver))
            await self.receiver.ask("report", refused=0, patience=self.sizes.seconds or SECONDS)
            settled, seconds = await api.total_delivered() - first, time.monotonic() - began
            usages = meter.usages()
        most = _most(target)
        await target.end()
        return self._reading(target, settled / seconds, usages, await self._ledger(filled), settled, most)

    async def _subscribed(self) -> _Filled:
        url, library = await self.crew.database(), new_library()
        receivers = [f"http://127.0.0.1:{self.port}/{place}" for place in range(self.subscriptions)]
        answer = await self.filler.ask("subscribe", url=url, library=library, receivers=receivers, in_flight=IN_FLIGHT)
        return _Filled(url=url, library=library, ids=answer["ids"])

    async def _expect(self, events: int) -> None:
        await self.receiver.ask("expect", receivers=self.subscriptions, events=events, losing=self.sizes.losing)

    async def _publish(
        self, target: Target, filled: _Filled, events: int, *, before: int
    ) -> tuple[float, tuple[Usage, ...], Ledger]:
        """Deliveries a second of *events* published now, where as many as *before* were settled before."""
        await self._expect(events)
        meter = Meter(watched(target, self.receiver))
        published = await flood(
            self.publisher, target, filled.library, self.sizes, events=events, batch=BATCH, connections=1
        )
        report = await report_of(self.receiver, published)
        made = published.accepted.bit_count() * self.subscriptions
        async with Api(target) as api:
            settled_at = await api.delivered(before * self.subscriptions + made, patience=PATIENCE_SECONDS)
            usages = meter.usages()
        return made / (settled_at - published.began), usages, account_of_received(published, report, dead=0)

    async def _ledger(self, filled: _Filled) -> Ledger:
        """What the gateway left behind, beside what came."""
        report = await self.receiver.ask("report", refused=0, patience=0)
        found = (await self.filler.ask("books", url=filled.url, ids=filled.ids))["books"]
        return account_of_books(
            events=self.events,
            books=[Books(delivered=delivered, dead=dead, owed=owed) for delivered, dead, owed in found],
            came=[int(numbers, 16) for numbers in report["came"]],
            strange=report["strange"],
            again=report["again"],
        )

    def _reading(
        self,
        target: Target,
        rate: float,
        usages: tuple[Usage, ...],
        ledger: Ledger,
        units: int,
        most: int | None,
    ) -> Reading:
        micros = cpu_micros(usages, max(1, units))
        started = () if target.started_in is None else (Value(name="started", unit="s", value=target.started_in),)
        return Reading(
            name=f"{self.events} events owed to each of {self.subscriptions} subscriptions",
            values=(
                *started,
                Value(name="settled", unit="deliveries/s", value=rate),
                *(() if micros is None else (Value(name="gateway CPU", unit="µs/delivery", value=micros),)),
                *(() if most is None else (Value(name=MOST, unit="MiB", value=most / 2**20),)),
            ),
            usages=usages,
            ledger=ledger,
        )


def _most(target: Target) -> int | None:
    return None if target.pid is None else most_resident_bytes(target.pid)


def _with_growth(reading: Reading) -> Reading:
    """What it takes of memory beyond one that owes nothing is a figure of its own."""
    more = [
        Value(name="memory beyond one that owes nothing", unit="MiB", value=value.value - value.baseline)
        for value in reading.values
        if value.name == MOST and value.baseline is not None
    ]
    return replace(reading, values=(*reading.values, *more))
