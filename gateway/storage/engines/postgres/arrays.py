"""A statement for many rows, as one: the values of each column are an array, which PostgreSQL takes apart.

    INSERT INTO t (a, b) VALUES ($1::BIGINT, $2::VARCHAR)
    INSERT INTO t (a, b) SELECT v.p1, v.p2 FROM unnest($1::BIGINT[], $2::VARCHAR[]) AS v(p1, p2)

    UPDATE t SET a=$1::BIGINT WHERE t.b = $2::VARCHAR
    UPDATE t SET a=v.p1 FROM unnest($1::BIGINT[], $2::VARCHAR[]) AS v(p1, p2) WHERE t.b = v.p2

So a batch of any size is planned and done once, and what triggers do for each statement they do for all of its rows.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_VALUE = re.compile(r"\$(\d+)::(DOUBLE PRECISION|[A-Z]+)")
_SHAPES = (
    re.compile(r"(?P<head>INSERT INTO .*?) VALUES \((?P<values>[^()]*)\)(?P<tail>.*)", re.DOTALL),
    re.compile(r"(?P<head>UPDATE .*?) WHERE (?P<tail>.*)", re.DOTALL),
    re.compile(r"(?P<head>DELETE FROM .*?) WHERE (?P<tail>.*)", re.DOTALL),
)
_KNOWN_AT_MOST = 200


@dataclass(frozen=True, slots=True)
class AtOnce:
    """*sql* does all rows."""

    sql: str
    keys: tuple[int, ...]
    """Which of a row's values say what it changes; of one that only adds, none."""

    def fits(self, rows: Sequence[Sequence[Any]]) -> bool:
        """Whether each of *rows* changes something else. What is changed twice has to be so in turn."""
        return not self.keys or len({tuple([row[at] for at in self.keys]) for row in rows}) == len(rows)


@lru_cache(_KNOWN_AT_MOST)
def at_once(sql: str) -> AtOnce | None:
    """How *sql*, which is for one row, is done for many; None if it is of no shape that is known."""
    types = dict(_VALUE.findall(sql))
    if not types or sql.count("$") != len(_VALUE.findall(sql)):
        return None
    numbers = sorted(map(int, types))
    arrays = ", ".join(f"${number}::{types[str(number)]}[]" for number in numbers)
    rows = f"unnest({arrays}) AS v({', '.join(f'p{number}' for number in numbers)})"
    for shape, form in zip(_SHAPES, _FORMS, strict=True):
        if (found := shape.fullmatch(sql)) is not None:
            parts = {name: _VALUE.sub(r"v.p\1", part) for name, part in found.groupdict().items()}
            keys = () if "values" in parts else tuple(int(number) - 1 for number, _ in _VALUE.findall(found["tail"]))
            return AtOnce(form.format(rows=rows, **parts), keys)
    return None


_FORMS = (
    "{head} SELECT {values} FROM {rows}{tail}",
    "{head} FROM {rows} WHERE {tail}",
    "{head} USING {rows} WHERE {tail}",
)
"""Of the shapes above, in their order."""
