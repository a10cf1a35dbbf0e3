"""The statements that a database is sent, whichever engine is behind it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from gateway.storage.database import Database
from gateway.storage.engines.sqlite.database import SqliteDatabase


@contextmanager
def listening(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """SQL and parameters of each statement that *database* is sent meanwhile; of many parameters the first."""
    sent: list[tuple[str, Any]] = []
    if isinstance(database, SqliteDatabase):
        listeners = database.statements.listeners

        def heard(sql: str, values: Any) -> None:
            sent.append((sql, values))

        listeners.append(heard)
        yield sent
        listeners.remove(heard)
        return

    def executed(*arguments: Any) -> None:
        _, _, statement, parameters, _, many = arguments
        sent.append((statement, parameters[0] if many else parameters))

    event.listen(Engine, "before_cursor_execute", executed)
    yield sent
    event.remove(Engine, "before_cursor_execute", executed)
