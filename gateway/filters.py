"""Which events a reader wants: one filter for streams, listings, subscriptions and handlers in this process."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Filter:
    """Libraries (any of), types (any of: exact, `branch.*`, `*`) and a CEL expression; None is no limit.

    Equal filters compare and hash equal, whatever order their lists were written in.
    """

    library_ids: frozenset[str] | None = None
    types: frozenset[str] | None = None
    expression: str | None = None
