"""What the modes share: how much is done and where, the events that are sent, and what the gateway took for it."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.bench.crew import Child, Crew, Target
from gateway.bench.errors import BenchError
from gateway.bench.figures import Reading, Usage, Value
from gateway.bench.ledger import Ledger, Numbers, account
from gateway.bench.usage import Watched, resident_bytes

BATCH, BATCH_CONNECTIONS = 100, 4
PACED_SECONDS = 10.0
PATIENCE_SECONDS = 120
"""For what was published to arrive, and to be settled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is done. None: what suits the mode."""

    events: int | None = None
    streams: int | None = None
    subscriptions: int | None = None
    history: int = 10_000_000
    """Events that are in the log already, where that is what is measured."""
    workers: int = 2
    rate: float | None = None
    seconds: float | None = None
    connections: int = 64
    event_bytes: int = 270
    losing: int = 0
    """The receiver forgets every so manyth event: the ledger must not balance then."""

    @property
    def paced_seconds(self) -> float:
        """How long events come one by one."""
        return self.seconds or PACED_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where it is done. *url* None: a gateway of its own, with its database in *directory*, or on the PostgreSQL at
    *server*."""

    url: str | None = None
    key: str | None = None
    pid: int | None = None
    directory: Path | None = None
    server: str | None = None

    def must_be_own(self) -> None:
        """Raises:
        BenchError: it is somebody's gateway that runs, whose database is not for us to fill.
        """
        if self.url is not None:
            raise BenchError("this needs gateways of its own: leave --url out")


async def the_gateway(crew: Crew, place: Place) -> Target:
    """The one that runs at *place*, or a new one."""
    if place.url is None:
        return await crew.gateway()
    parts = urlsplit(place.url)
    if parts.scheme != "http" or parts.hostname is None or place.key is None:
        raise BenchError("--url has to be like http://127.0.0.1:8000, and needs --key")
    return Target(host=parts.hostname, port=parts.port or 80, key=place.key, pid=place.pid)


def new_library() -> str:
    """A name that no other measurement has, so that each counts its own events alone."""
    return f"bench-{secrets.token_hex(6)}"


async def flood(
    publisher: Child, target: Target, library: str, sizes: Sizes, *, events: int, batch: int, connections: int
) -> "Published":
    """Publish as fast as it is answered."""
    answer = await publisher.ask(
        "flood",
        library=library,
        events=events,
        batch=batch,
        size=sizes.event_bytes,
        connections=connections,
        **target.publishing,
    )
    return Published.of(answer)


async def pace(
    publisher: Child,
    target: Target,
    library: str,
    sizes: Sizes,
    *,
    rate: float,
    seconds: float,
    batch: int = 1,
    libraries: int = 0,
) -> "Published":
    """Publish each event when it is due, so many in one request. *libraries*: see `roles.publisher`."""
    answer = await publisher.ask(
        "pace",
        library=library,
        events=paced_events(rate, seconds),
        rate=rate,
        size=sizes.event_bytes,
        connections=sizes.connections,
        batch=batch,
        libraries=libraries,
        **target.publishing,
    )
    return Published.of(answer)


def paced_events(rate: float, seconds: float) -> int:
    return max(1, round(rate * seconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a publisher says of its work. `began` is of CLOCK_MONOTONIC; all are seconds."""

    accepted: Numbers
    refused: Numbers
    began: float
    seconds: float
    answered_p50: float
    answered_p99: float
    sent_late_p99: float

    @classmethod
    def of(cls, answer: dict[str, Any]) -> "Published":
        accepted, refused = int(answer["accepted"], 16), int(answer["refused"], 16)
        if not accepted:
            raise BenchError("not one event was accepted: does the key hold, and may it publish?")
        return cls(**{**answer, "accepted": accepted, "refused": refused})

    @classmethod
    def before(cls, events: int) -> "Published":
        """*events* that were in the log before anything began."""
        nothing = dict.fromkeys(("began", "seconds", "answered_p50", "answered_p99", "sent_late_p99"), 0.0)
        return cls(accepted=2**events - 1, refused=0, **nothing)


def account_of_received(published: Published, report: dict[str, Any], *, dead: int) -> Ledger:
    """The ledger of all receivers, as their *report* has it. A webhook may come again."""
    noted = Ledger(published=0, delivered=0, dead=dead, again=report["again"], strange=report["strange"])
    return _account(published, report, noted)


def account_of_read(published: Published, report: dict[str, Any]) -> Ledger:
    """The ledger of all streams whose numbers were read. What comes again there is as wrong as what was never sent."""
    return _account(published, report, Ledger(published=0, delivered=0, strange=report["again"] + report["strange"]))


async def report_of(child: Child, published: Published) -> dict[str, Any]:
    """What a receiver or the readers have got, once it is all of what was accepted, or nobody can hope for it."""
    return await child.ask("report", refused=published.refused.bit_count(), patience=PATIENCE_SECONDS)


def _account(published: Published, report: dict[str, Any], whole: Ledger) -> Ledger:
    for came in report["came"]:
        whole += account(accepted=published.accepted, refused=published.refused, came=int(came, 16))
    return whole


def watched(target: Target, *loads: Child, beside: str = "") -> list[Watched]:
    """The gateway, if it can be watched, and who makes its load; or a baseline, with what it is called."""
    name = f" ({beside})" if beside else ""
    gateway = [] if target.pid is None else [Watched(name=beside or "gateway", pid=target.pid, is_load=False)]
    return gateway + [Watched(name=f"{load.name}{name}", pid=load.pid, is_load=True) for load in loads]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What a baseline did: *units* at *rate* a second."""

    rate: float | None
    units: int
    usages: tuple[Usage, ...]

    @property
    def micros(self) -> float | None:
        return cpu_micros(self.usages, self.units)


NOTHING = Beside(rate=None, units=0, usages=())


def costs(
    target: Target, usages: Sequence[Usage], units: int, unit: str, *, baseline: float | None
) -> tuple[Value, ...]:
    """What the gateway took for each of *units*, and what it holds afterwards; nothing where it cannot be watched.

    *baseline*: the microseconds of what stands beside it.
    """
    resident = None if target.pid is None else resident_bytes(target.pid)
    used = cpu_micros(usages, units)
    if resident is None or used is None:
        return ()
    return (
        Value(name="gateway CPU", unit=f"µs/{unit}", value=used, baseline=baseline),
        Value(name="gateway memory", unit="MiB", value=resident / 2**20),
    )


def cpu_micros(usages: Sequence[Usage], units: int) -> float | None:
    """Microseconds of the processor for each of *units*, of what is measured."""
    return next((usage.cpu_seconds * 1e6 / units for usage in usages if not usage.is_load), None)


def compared(reading: Reading, beside: Reading) -> Reading:
    """*reading*, whose figures are compared to those of the same names in *beside*; what was lost there counts too."""
    baselines = {value.name: value.value for value in beside.values}
    return replace(
        reading,
        values=tuple(replace(value, baseline=baselines.get(value.name)) for value in reading.values),
        usages=reading.usages + tuple(replace(usage, name=f"{usage.name} (baseline)") for usage in beside.usages),
        ledger=reading.ledger + beside.ledger,
    )


def milliseconds(name: str, seconds: float | None, baseline: float | None = None) -> Value:
    """A latency; 0 where nothing came at all, which the ledger says."""
    beside = None if baseline is None else baseline * 1e3
    return Value(name=name, unit="ms", value=(seconds or 0.0) * 1e3, baseline=beside)
