"""Many streams of one gateway, or of what stands beside it: opened, fed, and counted."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from gateway.bench.crew import Child, Target
from gateway.bench.figures import Reading, Usage, Value
from gateway.bench.ledger import Ledger, account_by_count
from gateway.bench.marks import BEGUN, PLACE, one_of_many
from gateway.bench.stage import (
    BATCH,
    BATCH_CONNECTIONS,
    Published,
    Sizes,
    account_of_read,
    cpu_micros,
    flood,
    milliseconds,
    new_library,
    pace,
    paced_events,
    report_of,
    watched,
)
from gateway.bench.usage import Meter, resident_bytes

WARM_UP_STREAMS, WARM_UP_EVENTS = 2, 200
"""Few, because those that are opened later take what these leave of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
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
class Side:
    """A gateway, or (with a name) what stands beside it; and who publishes to it and reads from it."""

    publisher: Child
    readers: Child
    target: Target
    sizes: Sizes
    name: str = ""
    begun: str = BEGUN

    @property
    def is_plain(self) -> bool:
        """It has one stream for all, whatever is published."""
        return bool(self.name)

    async def warm_up(self) -> None:
        library = await self.join(WARM_UP_STREAMS)
        await self.load(WARM_UP_STREAMS, WARM_UP_EVENTS, 1, self.flood(library, WARM_UP_EVENTS))
        await self.leave()

    async def idle(self, streams: int) -> tuple[str, float | None]:
        """Open *streams*: the library that they read, and what each takes of memory, in bytes."""
        before = self._resident()
        library = await self.join(streams)
        after = self._resident()
        return library, None if before is None or after is None else (after - before) / streams

    async def join(self, streams: int) -> str:
        """The library whose events they are sent."""
        library = new_library()
        await self.open(streams, f"/v1/libraries/{library}/events/stream")
        return library

    async def join_each(self, streams: int) -> str:
        """The name after which each has a library of its own."""
        library = new_library()
        await self.open(streams, f"/v1/libraries/{one_of_many(library, PLACE)}/events/stream")
        return library

    async def open(self, streams: int, path: str, **how: object) -> float:
        """How many seconds it took until each had begun; see `roles.readers` for *how*."""
        answer = await self.readers.ask(
            "join",
            host=self.target.host,
            port=self.target.port,
            key=self.target.key,
            path="/v1/events/stream" if self.is_plain else path,
            begun=self.begun,
            streams=streams,
            **how,
        )
        return float(answer["seconds"])

    async def leave(self) -> None:
        await self.readers.ask("leave")

    async def load(
        self, streams: int, events: int, reading: int, work: Awaitable[Published], *, spread: bool = False
    ) -> Load:
        """What comes of *work*; *reading*: of so many streams each number is read. *spread*: see `roles.readers`."""
        await self.readers.ask("expect", events=events, reading=reading, spread=spread)
        meter = self.meter()
        published = await work
        report = await report_of(self.readers, published)
        return Load(streams=1 if spread else streams, published=published, report=report, usages=meter.usages())

    async def burst(self, streams: int, library: str, events: int, *, batch: int = BATCH) -> Load:
        return await self.load(streams, events, 1, self.flood(library, events, batch=batch))

    async def paced(self, streams: int, library: str, rate: float) -> Load:
        """Events one by one; each number of each stream is read."""
        seconds = self.sizes.paced_seconds
        work = pace(self.publisher, self.target, library, self.sizes, rate=rate, seconds=seconds)
        return await self.load(streams, paced_events(rate, seconds), streams, work)

    async def flood(self, library: str, events: int, *, batch: int = BATCH) -> Published:
        return await flood(
            self.publisher,
            self.target,
            library,
            self.sizes,
            events=events,
            batch=batch,
            connections=BATCH_CONNECTIONS,
        )

    def meter(self) -> Meter:
        return Meter(watched(self.target, self.publisher, self.readers, beside=self.name))

    def _resident(self) -> int | None:
        return None if self.target.pid is None else resident_bytes(self.target.pid)


def paced_reading(load: Load, beside: Load | None, rate: float) -> Reading:
    """Of events one by one: how late they were, and what a frame cost."""
    micros = load.micros_per_frame
    other: dict[str, Any] = {} if beside is None else beside.report
    return Reading(
        name=f"{rate:g} events/s one by one to {load.streams} streams",
        values=(
            milliseconds("publish → stream, p50", load.report["p50"], other.get("p50")),
            milliseconds("publish → stream, p99", load.report["p99"], other.get("p99")),
            *(
                ()
                if micros is None
                else (
                    Value(
                        name="gateway CPU",
                        unit="µs/frame",
                        value=micros,
                        baseline=None if beside is None else beside.micros_per_frame,
                    ),
                )
            ),
        ),
        usages=load.usages + (beside.usages if beside else ()),
        ledger=load.ledger,
    )
