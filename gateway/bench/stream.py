"""`stream`: what it takes to hold many streams of one filter open, and to write each event to all of them."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from gateway.bench.crew import Child, Crew, Target
from gateway.bench.figures import Reading, Usage, Value
from gateway.bench.ledger import Ledger, account_by_count
from gateway.bench.marks import BASELINE_BEGUN, BEGUN
from gateway.bench.stage import (
    BATCH,
    BATCH_CONNECTIONS,
    Place,
    Published,
    Sizes,
    account_of_read,
    costs,
    cpu_micros,
    flood,
    milliseconds,
    new_library,
    pace,
    paced_events,
    report_of,
    the_gateway,
    watched,
)
from gateway.bench.usage import Meter, resident_bytes

EVENTS = 2_000
RATE = 20.0
BASELINE = 20
"""Of so many events of a burst the baseline gets one: it takes longer."""
WARM_UP_STREAMS, WARM_UP_EVENTS = 2, 200
"""Few, because those that are opened later take what these leave of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    """What came of a burst, or of events one by one."""

    streams: int
    published: Published
    report: dict[str, Any]
    usages: tuple[Usage, ...]

    @property
    def frames(self) -> int:
        return self.streams * self.published.accepted.bit_count()

    @property
    def frames_per_second(self) -> float:
        seconds: float = self.report["last"] - self.published.began
        return self.frames / seconds if seconds > 0 else 0.0

    @property
    def micros_per_frame(self) -> float | None:
        return cpu_micros(self.usages, self.frames)

    @property
    def ledger(self) -> Ledger:
        """Of the streams whose numbers were read, and of those that were counted only."""
        return account_of_read(self.published, self.report) + account_by_count(
            accepted=self.published.accepted.bit_count(),
            refused=self.published.refused.bit_count(),
            counts=self.report["counts"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """The gateway, or (with a name) what stands beside it; and who publishes to it and reads from it."""

    publisher: Child
    readers: Child
    target: Target
    name: str = ""

    async def findings(self, sizes: Sizes, events: int) -> tuple[float | None, _Load, _Load]:
        """Bytes of memory for an idle stream, a burst of *events*, and events one by one."""
        await self._burst(sizes, WARM_UP_STREAMS, WARM_UP_EVENTS)
        before = self._resident()
        library = await self._join(sizes.streams)
        after = self._resident()
        idle = None if before is None or after is None else (after - before) / sizes.streams
        burst = await self._load(sizes.streams, events, 1, self._flood(sizes, library, events))
        await self.readers.ask("leave")
        library, rate = await self._join(sizes.streams), sizes.rate or RATE
        work = pace(self.publisher, self.target, library, sizes, rate=rate, seconds=sizes.seconds)
        paced = await self._load(sizes.streams, paced_events(rate, sizes.seconds), sizes.streams, work)
        await self.readers.ask("leave")
        return idle, burst, paced

    async def _burst(self, sizes: Sizes, streams: int, events: int) -> None:
        library = await self._join(streams)
        await self._load(streams, events, 1, self._flood(sizes, library, events))
        await self.readers.ask("leave")

    async def _join(self, streams: int) -> str:
        """The library whose events they are sent."""
        library = new_library()
        await self.readers.ask(
            "join",
            host=self.target.host,
            port=self.target.port,
            key=self.target.key,
            path="/v1/events/stream" if self.name else f"/v1/libraries/{library}/events/stream",
            begun=BASELINE_BEGUN if self.name else BEGUN,
            streams=streams,
        )
        return library

    async def _load(self, streams: int, events: int, reading: int, work: Awaitable[Published]) -> _Load:
        """What comes of *work*; *reading*: of so many streams each number is read."""
        await self.readers.ask("expect", events=events, reading=reading)
        meter = Meter(watched(self.target, self.publisher, self.readers, beside=self.name))
        published = await work
        report = await report_of(self.readers, published)
        return _Load(streams=streams, published=published, report=report, usages=meter.usages())

    async def _flood(self, sizes: Sizes, library: str, events: int) -> Published:
        return await flood(
            self.publisher,
            self.target,
            library,
            sizes,
            events=events,
            batch=BATCH,
            connections=BATCH_CONNECTIONS,
        )

    def _resident(self) -> int | None:
        return None if self.target.pid is None else resident_bytes(self.target.pid)


async def readings(crew: Crew, place: Place, sizes: Sizes) -> list[Reading]:
    """Idle, a burst, and a steady trickle; the baseline is Litestar's `ServerSentEvent`."""
    events = sizes.events or EVENTS
    publisher, readers = await crew.hire("publisher"), await crew.hire("readers")
    plain, beside = await crew.baseline("plain_sse")
    side = _Side(publisher=publisher, readers=readers, target=beside, name="ServerSentEvent")
    baselines = await side.findings(sizes, max(1, events // BASELINE))
    await plain.end()
    target = await the_gateway(crew, place)
    found = await _Side(publisher=publisher, readers=readers, target=target).findings(sizes, events)
    return [
        _burst_reading(target, found[1], baselines[1], _idle_values(found[0], baselines[0])),
        _paced_reading(found[2], baselines[2], sizes.rate or RATE),
    ]


def _idle_values(idle: float | None, baseline: float | None) -> tuple[Value, ...]:
    if idle is None:
        return ()
    beside = None if baseline is None else baseline / 2**10
    return (Value(name="gateway memory, idle", unit="KiB/stream", value=idle / 2**10, baseline=beside),)


def _burst_reading(target: Target, burst: _Load, baseline: _Load, idle: tuple[Value, ...]) -> Reading:
    return Reading(
        name=f"a burst to {burst.streams} streams",
        values=(
            Value(
                name="written",
                unit="frames/s",
                value=burst.frames_per_second,
                baseline=baseline.frames_per_second,
            ),
            *idle,
            *costs(target, burst.usages, burst.frames, "frame", baseline=baseline.micros_per_frame),
        ),
        usages=burst.usages + baseline.usages,
        ledger=burst.ledger,
    )


def _paced_reading(paced: _Load, baseline: _Load, rate: float) -> Reading:
    micros = paced.micros_per_frame
    return Reading(
        name=f"{rate:g} events/s one by one to {paced.streams} streams",
        values=(
            milliseconds("publish → stream, p50", paced.report["p50"], baseline.report["p50"]),
            milliseconds("publish → stream, p99", paced.report["p99"], baseline.report["p99"]),
            *(
                ()
                if micros is None
                else (Value(name="gateway CPU", unit="µs/frame", value=micros, baseline=baseline.micros_per_frame),)
            ),
        ),
        usages=paced.usages + baseline.usages,
        ledger=paced.ledger,
    )
