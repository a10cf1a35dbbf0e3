"""A statement for many rows, done some of them at a time.

    INSERT INTO t (a, b) VALUES (?, ?)
    INSERT INTO t (a, b) VALUES (?, ?), (?, ?), …

    UPDATE t SET a=? WHERE t.b = ?
    UPDATE t SET a=v.column1 FROM (VALUES (?, ?), (?, ?), …) AS v WHERE t.b = v.column2

Before each statement sqlite3 lets go of the interpreter, and has to wait for it afterwards: beside a busy loop a row by
itself took 0.2 to 0.3 ms, one of 64 takes 0.02 to 0.08.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

Values = tuple[Any, ...]

_SIZES = (64, 16, 4, 1)
"""Few, so that each is prepared once and kept."""
_INSERT = re.compile(r"(?P<head>INSERT INTO [^?]* VALUES )(?P<row>\([?, ]+\))(?P<tail>[^?]*)", re.DOTALL)
_UPDATE = re.compile(r"(?P<head>UPDATE .*?) WHERE (?P<tail>.*\?.*)", re.DOTALL)
_KNOWN_AT_MOST = 200


def some_at_a_time(sql: str, rows: Sequence[Values]) -> Iterator[tuple[str, Values]] | None:
    """Statements that together do *sql* for each of *rows*; None: it is of no shape that is known, or changes something
    twice, which has to be so in turn."""
    shape = _shape(sql)
    return _portions(shape, rows) if shape is not None and shape.fits(rows) else None


def _portions(shape: "_Shape", rows: Sequence[Values]) -> Iterator[tuple[str, Values]]:
    start = 0
    for size in _SIZES:
        while len(rows) - start >= size:
            yield shape.of(size), tuple(chain.from_iterable(rows[start : start + size]))
            start += size


@dataclass(frozen=True, slots=True)
class _Shape:
    one: str
    head: str
    row: str
    tail: str
    keys: tuple[int, ...]
    """Which of a row's values say what it changes; of one that only adds, none."""

    def of(self, count: int) -> str:
        return self.one if count == 1 else self.head + ", ".join([self.row] * count) + self.tail

    def fits(self, rows: Sequence[Values]) -> bool:
        return not self.keys or len({tuple([row[at] for at in self.keys]) for row in rows}) == len(rows)


@lru_cache(_KNOWN_AT_MOST)
def _shape(sql: str) -> _Shape | None:
    if (found := _INSERT.fullmatch(sql)) is not None:
        return _Shape(one=sql, keys=(), **found.groupdict())
    if (found := _UPDATE.fullmatch(sql)) is None:
        return None
    count, before = sql.count("?"), found["head"].count("?")
    names = iter(range(1, count + 1))
    head, tail = (re.sub(r"\?", lambda _: f"v.column{next(names)}", found[part]) for part in ("head", "tail"))
    row = f"({', '.join('?' * count)})"
    return _Shape(sql, f"{head} FROM (VALUES ", row, f") AS v WHERE {tail}", tuple(range(before, count)))
