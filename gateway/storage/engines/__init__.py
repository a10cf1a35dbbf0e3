"""The engines behind `Database`, chosen by URL. What only one of them needs stays in its folder.

sqlite ───── one writer at a time, in a thread of its own; a file lock keeps other processes out
postgres ─── transactions side by side, by a pool; processes share it
"""

from gateway.storage.database import Database
from gateway.storage.engines.postgres import PostgresDatabase
from gateway.storage.engines.postgres.server import POSTGRES
from gateway.storage.engines.sqlite import SqliteDatabase
from gateway.storage.sealing import PLAIN, Seal
from gateway.times import Clock
from gateway.times import now as system_clock

EXPECTED = "expected sqlite:///path/to/file.db or postgresql://user@host/database"


def database_of(url: str, *, clock: Clock = system_clock, seal: Seal | None = PLAIN) -> Database:
    """The database at *url*, not opened yet. *seal*: see `Database`.

    Raises:
        ValueError: it is none that can be used, in words that say what is wrong with it.
    """
    if url.startswith(POSTGRES):
        return PostgresDatabase(url, clock=clock, seal=seal)
    if url.startswith("sqlite:"):
        return SqliteDatabase(url, clock=clock, seal=seal)
    raise ValueError(EXPECTED)
