"""A statement for many rows, as a few for as many of them as there are powers of two in their number.

    INSERT INTO t (a, b) VALUES (?, ?)
    INSERT INTO t (a, b) VALUES (?, ?), (?, ?)

    UPDATE t SET a=? WHERE t.b = ?
    UPDATE t SET a=v.column1 FROM (VALUES (?, ?), (?, ?)) AS v WHERE t.b = v.column2

sqlite3 gives the interpreter away for each row of `executemany`, and waits to have it back: beside a busy event loop
eight rows take 2 to 4 ms so, and a third of that at once.
"""

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

SIZES = (64, 32, 16, 8, 4, 2)
"""In rows: few, so that sqlite3 keeps them prepared."""
UPDATES_FROM = sqlite3.sqlite_version_info >= (3, 33)
"""Whether an UPDATE may have a FROM; without, it is done row by row."""
_KNOWN_AT_MOST = 200
_INSERT = re.compile(r"(?P<head>INSERT INTO .*? VALUES) (?P<values>\([?, ]*\))(?P<tail>[^?]*)", re.DOTALL)
_UPDATE = re.compile(r"UPDATE (?P<head>.*?) WHERE (?P<tail>[^()]*)", re.DOTALL)

Values = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Batched:
    """A statement that can be done for many rows at once."""

    of: Callable[[int], str]
    """The SQL for so many."""
    keys: tuple[int, ...]
    """Which of a row's values say what it changes; of one that only adds, none."""

    def fits(self, rows: Sequence[Values]) -> bool:
        """Whether each of *rows* changes something else. What is changed twice has to be so in turn."""
        return not self.keys or len({tuple([row[at] for at in self.keys]) for row in rows}) == len(rows)


def batches(sql: str, rows: Sequence[Values]) -> Iterator[tuple[str, list[Any]]]:
    """Statements that together do *sql* for all of *rows*, in their order, with the values of each.

    Those left over are done one by one, and so are all if *sql* is of no shape that is known.
    """
    batched = _batched(sql)
    at = 0
    if batched is not None and batched.fits(rows):
        for size in SIZES:
            while len(rows) - at >= size:
                yield batched.of(size), list(chain.from_iterable(rows[at : at + size]))
                at += size
    for row in rows[at:]:
        yield sql, list(row)


@lru_cache(_KNOWN_AT_MOST)
def _batched(sql: str) -> Batched | None:
    if (found := _INSERT.fullmatch(sql)) is not None:
        return Batched(_insert_of(found["head"], found["values"], found["tail"]), ())
    if UPDATES_FROM and (found := _UPDATE.fullmatch(sql)) is not None:
        count, before = sql.count("?"), found["head"].count("?")
        head, tail = _numbered(found["head"], 1), _numbered(found["tail"], before + 1)
        return Batched(_update_of(head, tail, count), tuple(range(before, count)))
    return None


def _insert_of(head: str, values: str, tail: str) -> Callable[[int], str]:
    return lru_cache(len(SIZES))(lambda rows: f"{head} {', '.join([values] * rows)}{tail}")


def _update_of(head: str, tail: str, count: int) -> Callable[[int], str]:
    values = f"({', '.join('?' * count)})"
    return lru_cache(len(SIZES))(
        lambda rows: f"UPDATE {head} FROM (VALUES {', '.join([values] * rows)}) AS v WHERE {tail}"
    )


def _numbered(part: str, first: int) -> str:
    """*part* with the columns of `v` in place of its values."""
    first_piece, *others = part.split("?")
    return first_piece + "".join(f"v.column{number}{piece}" for number, piece in enumerate(others, start=first))
