"""What processes take of the processor and of memory, as Linux tells it under /proc."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.bench.figures import Usage

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


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
    """What all threads of a process have taken so far; None: it is not there, or this is not Linux."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int | None:
    """What a process holds in memory; None as above."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * _PAGE
    except OSError:
        return None
