"""What a database says of its move to another: all of it has gone, or not all of it has arrived.

    source                                     target
    going to … ─────────────────────────────▶  coming from …, and how far each table is
        │                                      batch after batch, each in one commit with how far it brings its table
    gone to …  ◀── every table is there ────       │
        └───────────────────────────────────▶  whole

Of the two at most one may be served at any time: the target once it is whole, the source until something has begun.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import delete, select

from gateway.errors import StorageUnavailable
from gateway.storage.connection import Connection
from gateway.storage.dialects import upsert
from gateway.storage.tables import moves

Key = tuple[Any, ...]
"""The primary key of a row, as the database keeps it."""


class Progress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of one table is there."""

    rows: int = 0
    last: Key | None = None
    is_done: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One end of a move. *token* is the same at both, and another for each move that was begun."""

    token: str
    is_source: bool
    other: str
    """Where the other end is, without its password."""
    is_whole: bool = False
    progress: Mapping[str, Progress] = field(default_factory=dict)
    """By table, at the target."""

    @property
    def refusal(self) -> str | None:
        """Why this database cannot be served."""
        match self.is_source, self.is_whole:
            case True, True:
                return (
                    f"This database has moved to {self.other}: set GATEWAY_DATABASE_URL to that one. "
                    "(`gateway restored` takes this one into use again, as a log of its own.)"
                )
            case True, False:
                return (
                    f"This database is being copied to {self.other}: run `gateway copy` again to finish, "
                    "or `gateway copy --give-up` to go on with this one"
                )
            case False, False:
                return (
                    f"This database is half a copy of {self.other}: run `gateway copy` again, which goes on from here"
                )
        return None


async def move_of(connection: Connection) -> Move | None:
    row = (await connection.execute(select(moves))).one_or_none()
    if row is None:
        return None
    progress = msgspec.convert(row.progress, dict[str, Progress])
    return Move(token=row.token, is_source=row.is_source, other=row.other, is_whole=row.is_whole, progress=progress)


async def keep_move(connection: Connection, move: Move) -> None:
    row = {
        "one": 1,
        "token": move.token,
        "is_source": move.is_source,
        "other": move.other,
        "is_whole": move.is_whole,
        "progress": msgspec.to_builtins(move.progress),
    }
    await connection.execute(upsert(connection, moves), row)


async def forget_move(connection: Connection) -> None:
    await connection.execute(delete(moves))


async def refuse_half(connection: Connection) -> None:
    """Raises:
    StorageUnavailable: the database has moved, or not all of it has arrived, in words that say what to do.
    """
    move = await move_of(connection)
    if move is not None and move.refusal is not None:
        raise StorageUnavailable(move.refusal)
