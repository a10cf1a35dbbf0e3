"""What each event of a measurement carries: its number, for the ledger, and when it was due, for its latency.

Times are of CLOCK_MONOTONIC, which all processes of a machine share.
"""

import re
from collections.abc import Sequence

TYPE = "document.added"
MARK = b'"bench":['
"""Stands in each event once, and in nothing else."""
BEGUN = "\nid: "
"""What shows that a stream has begun: its place in the log."""
PLACE = "{place}"
"""Stands in a path for the number of the stream that asks for it."""
BASELINE_BEGUN = "the stream has begun"
_MARK = re.compile(rb'"bench":\[(\d+),([0-9.]+)\]')
_SHAPE = '{"type":"%s","library_id":"%s","data":{"bench":[%d,%.6f],"text":"%s"}}'
_FILLING = "the quick brown fox jumps over the lazy dog "


def event_json(number: int, due: float, library: str, size: int) -> bytes:
    """The event as it is published, *size* bytes long (or as long as it has to be)."""
    bare = _SHAPE % (TYPE, library, number, due, "")
    missing = max(0, size - len(bare))
    text = (_FILLING * (missing // len(_FILLING) + 1))[:missing]
    return f'{bare[:-3]}{text}"}}}}'.encode()


def batch_json(first: int, count: int, due: float, library: str, size: int) -> bytes:
    return array_json([event_json(number, due, library, size) for number in range(first, first + count)])


def array_json(events: Sequence[bytes]) -> bytes:
    return b"[%b]" % b",".join(events)


def one_of_many(library: str, place: object) -> str:
    """The name of a library of its own, where each stream has one; *place* is the stream's number, or PLACE."""
    return f"{library}-{place}"


def marks_in(data: bytes) -> list[tuple[int, float]]:
    """The number and the due time of each event in *data*."""
    return [(int(number), float(due)) for number, due in _MARK.findall(data)]
