"""Take a database into use that is not what readers have seen last: one from a backup, or one that had moved away.

the log:  … a b c ┊ d e f         f was read; then all is as it was after c, and other events get the places of d e f
so its epoch is another: who comes back with a cursor from before is told that something is missing, and begins anew
"""

import secrets
from dataclasses import dataclass

from sqlalchemy import func, select, update

from gateway.errors import StorageUnavailable
from gateway.events import Cursor
from gateway.storage.database import Transaction
from gateway.storage.engines import database_of
from gateway.storage.engines.postgres.server import FAULTS, connect, terminate
from gateway.storage.engines.postgres.sessions import is_served
from gateway.storage.engines.postgres.url import POSTGRES
from gateway.storage.engines.sqlite.database import path_of
from gateway.storage.log import hold, position
from gateway.storage.moves import forget_move, move_of
from gateway.storage.tables import delivery_counts, log

_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"


class RestoreRefused(Exception):
    """In words for a person. Nothing has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was found, and what was done."""

    former_epoch: str
    epoch: str
    head: Cursor
    owed: int
    """Deliveries that are pending: what was sent since the backup is sent again."""
    had_moved_to: str | None = None
    """It was marked as having moved there, and is not any more."""


async def restored(url: str) -> Restored:
    """Begin a new epoch in the database at *url*; all at once, or not at all.

    Raises:
        RestoreRefused: there is no such database, it is served, or it is half a copy.
        DatabaseInUse: it is served, where it is a file.
        StorageUnavailable: it cannot be opened.
        ValueError: *url* is none that can be used.
    """
    if url.startswith(POSTGRES):
        await _refuse_served(url)
    elif not path_of(url).is_file():
        raise RestoreRefused(f"There is no database {path_of(url)}")
    async with database_of(url, seal=None, whole=False) as database:
        return await database.write(_begin_anew)


async def _begin_anew(transaction: Transaction) -> Restored:
    connection = transaction.connection
    await hold(connection)
    move = await move_of(connection)
    if move is not None and not move.is_source and not move.is_whole:
        raise RestoreRefused(move.refusal or "")
    was = await position(connection)
    epoch = "".join(secrets.choice(_LETTERS) for _ in range(10))
    await connection.execute(update(log).values(epoch=epoch))
    had_moved_to = None
    if move is not None and move.is_source:
        had_moved_to = move.other
        await forget_move(connection)
    owed = await connection.scalar(select(func.coalesce(func.sum(delivery_counts.c.pending), 0)))
    return Restored(former_epoch=was.epoch, epoch=epoch, head=was.head, owed=int(owed or 0), had_moved_to=had_moved_to)


async def _refuse_served(url: str) -> None:
    try:
        connection = await connect(url, {"application_name": "arrw-gateway restored"})
        try:
            if await is_served(connection):
                raise RestoreRefused("A gateway is at work on this database: stop all of them first")
        finally:
            terminate(connection)
    except FAULTS as error:
        raise StorageUnavailable(f"The database cannot be opened now: {error or type(error).__name__}") from error
