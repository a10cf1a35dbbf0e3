"""What a statement came to, whichever engine it was."""

from collections.abc import Iterator, Sequence
from typing import Any


class Found:
    """`gateway.storage.connection.Rows`, all of them in memory."""

    def __init__(self, rows: Sequence[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> Sequence[Any]:
        return self._rows

    def one(self) -> Any:  # noqa: ANN401 - a row
        """Raises:
        LookupError: there is none, or there are several.
        """
        if len(self._rows) != 1:
            raise LookupError(f"{len(self._rows)} rows where there is to be one")
        return self._rows[0]

    def one_or_none(self) -> Any:  # noqa: ANN401
        return self.one() if self._rows else None

    def scalar_one(self) -> Any:  # noqa: ANN401
        return self.one()[0]

    def scalars(self) -> "Found":
        return Found([row[0] for row in self._rows], self.rowcount)
