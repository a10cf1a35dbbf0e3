"""What processes take of the processor and of memory, as Linux tells it under /proc."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.bench.figures import Usage

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    name: str
    pid: int
    is_load: bool


class Meter:
    """Looks at processes from when it is made until `usages()`. Of one that it cannot look at it says nothing."""

    def __init__(self, watched: Sequence[Watched]) -> None:
        self._began = time.monotonic()
        self._before = [(one, cpu_seconds(one.pid)) for one in watched]

    def usages(self) -> tuple[Usage, ...]:
        seconds = time.monotonic() - self._began
        return tuple(
            Usage(name=one.name, is_load=one.is_load, cpu_seconds=after - before, seconds=seconds)
            for one, before in self._before
            if before is not None and (after := cpu_seconds(one.pid)) is not None
        )


def cpu_seconds(pid: int) -> float | None:
    """What a process and its children have taken so far, all threads; None: it is not there, or this is not Linux."""
    found = [fields for one in family(pid) if (fields := _stat(one)) is not None]
    return sum(int(fields[11]) + int(fields[12]) for fields in found) / _TICKS if found else None


def resident_bytes(pid: int) -> int | None:
    """What a process and its children hold in memory; None as above."""
    return _kib_of(pid, "VmRSS:")


def most_resident_bytes(pid: int) -> int | None:
    """What they held at most, each by itself."""
    return _kib_of(pid, "VmHWM:")


def family(pid: int) -> list[int]:
    """A process and all below it: a gateway may have workers."""
    below: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*"):
        if (fields := _stat(int(file.name))) is not None:
            below.setdefault(int(fields[1]), []).append(int(file.name))
    found = [pid]
    for one in found:
        found += below.get(one, [])
    return found


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/…/stat from the third on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()  # the name before it may hold anything


def _kib_of(pid: int, name: str) -> int | None:
    found = list[int]()
    for one in family(pid):
        try:
            lines = Path(f"/proc/{one}/status").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        found += [int(line.split()[1]) * 2**10 for line in lines if line.startswith(name)]
    return sum(found) if found else None
