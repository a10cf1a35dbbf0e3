"""The engines behind `Database`, chosen by URL. What only one of them needs stays in its folder.

sqlite ───── one writer at a time, in a thread of its own; a file lock keeps other processes out
postgres ─── transactions side by side, by a pool; processes share it. Imported where it is chosen: its driver is large
"""

import pkgutil
import re
from collections.abc import Callable

from gateway.storage.database import Database
from gateway.storage.engines.postgres.url import POSTGRES
from gateway.storage.engines.sqlite import SqliteDatabase
from gateway.storage.sealing import PLAIN, Seal
from gateway.times import Clock
from gateway.times import now as system_clock

_POSTGRES_DATABASE = "gateway.storage.engines.postgres.database:PostgresDatabase"
EXPECTED = "expected sqlite:///path/to/file.db or postgresql://user@host/database"


def database_of(url: str, *, clock: Clock = system_clock, seal: Seal | None = PLAIN, whole: bool = True) -> Database:
    """The database at *url*, not opened yet. *seal*, *whole*: see `Database`.

    Raises:
        ValueError: it is none that can be used, in words that say what is wrong with it.
    """
    if url.startswith(POSTGRES):
        make: Callable[..., Database] = pkgutil.resolve_name(_POSTGRES_DATABASE)
        return make(url, clock=clock, seal=seal, whole=whole)
    if url.startswith("sqlite:"):
        return SqliteDatabase(url, clock=clock, seal=seal, whole=whole)
    raise ValueError(EXPECTED)


def without_password(url: str) -> str:
    """*url* as it may be shown to people."""
    shown = re.sub(r"(://[^:@/]*):[^/]*@", r"\1:***@", url)
    return re.sub(r"(?<=[?&])(password|passfile|sslpassword)=[^&]*", r"\1=***", shown)
