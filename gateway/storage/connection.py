"""What the stores need of a connection. SQLAlchemy's `Connection` is one; SQLite has one that is made for it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Dialect, Executable

Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""Values by name; many of them: the statement is done for each."""


class Scalars(Protocol):
    """The first column of some rows."""

    def all(self) -> Sequence[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Rows(Protocol):
    """What a statement came to. Rows are tuples whose columns are attributes too; they are read once."""

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""

    def __iter__(self) -> Iterator[Any]: ...

    def all(self) -> Sequence[Any]: ...

    def one(self) -> Any:  # noqa: ANN401 - a row
        """The only row. Anything else raises."""

    def one_or_none(self) -> Any: ...  # noqa: ANN401

    def scalar_one(self) -> Any: ...  # noqa: ANN401

    def scalars(self) -> Scalars: ...


class Connection(Protocol):
    """Within one transaction."""

    @property
    def dialect(self) -> Dialect: ...

    async def execute(self, statement: Executable, parameters: Parameters | None = None) -> Rows: ...

    async def scalar(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401
        """The first column of the first row, None if there is none."""
