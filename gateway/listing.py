"""A page of a listing, and where the next one starts."""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Listing(Generic[T, K]):
    """`more` is the key of the last row that was examined, to go on after; None at the end."""

    rows: tuple[T, ...]
    more: K | None


EXAMINED_ROWS = 10_000
"""No page examines more rows than this, however few match."""
EXAMINED_BYTES = 8 * 2**20
