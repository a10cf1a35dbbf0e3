"""The statements that a database is sent, whichever engine is behind it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gateway.storage.database import Database
from gateway.storage.engines.postgres.database import PostgresDatabase
from gateway.storage.engines.sqlite.database import SqliteDatabase


@contextmanager
def listening(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """SQL and parameters of each statement that *database* is sent meanwhile; of many parameters the first."""
    assert isinstance(database, SqliteDatabase | PostgresDatabase)
    sent: list[tuple[str, Any]] = []

    def heard(sql: str, values: Sequence[Any]) -> None:
        sent.append((sql, values))

    database.statements.listeners.append(heard)
    yield sent
    database.statements.listeners.remove(heard)
