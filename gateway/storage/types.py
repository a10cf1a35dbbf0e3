"""Event types as conditions in SQL: exact, a branch (`document.*`), or any (`*`)."""

from typing import Any

from sqlalchemy import ColumnElement, true


def is_of_type(column: ColumnElement[str], name: str) -> ColumnElement[Any]:
    if name == "*":
        return true()
    return below(column, name[:-1]) if name.endswith(".*") else column == name


def below(column: ColumnElement[str], prefix: str) -> ColumnElement[Any]:
    """Types that begin with *prefix*, which ends in a dot: `/` is the next character after it."""
    return (column >= prefix) & (column < prefix[:-1] + "/")
