"""SQLite: the log and everything else in one file, for one process."""

from gateway.storage.engines.sqlite.database import SqliteDatabase
from gateway.storage.engines.sqlite.file import DatabaseInUse

__all__ = ["DatabaseInUse", "SqliteDatabase"]
