"""The database's versions, oldest first, in `versions/`. `upgrade` brings a database to the newest."""

import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from gateway.storage.tables import metadata

NEWEST: Final = max(path.name[:4] for path in (Path(__file__).parent / "versions").glob("[0-9]*.py"))


def upgrade(connection: Connection, *, to: str = NEWEST) -> None:
    """Bring the database behind *connection* to the newest version, or *to*, in the transaction that is open on it.

    Raises:
        StorageUnavailable: it is of a version that is not known here, so of a newer gateway.
    """
    if _version(connection) == to:
        return
    # Alembic takes a third of a second to import, and most starts find nothing to do.
    run: Callable[[Connection, str], None] = pkgutil.resolve_name("gateway.storage.migrations.upgrading:run")
    run(connection, to)


def _version(connection: Connection) -> str | None:
    """None: it has none yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return found


def in_byte_order(connection: Connection) -> None:
    """Have PostgreSQL order our text by its bytes, as SQLite and Python do: by the database's language dots count for
    nothing, and types, libraries and ids are compared and walked through in order.
    """
    for table, column, type_ in connection.execute(_BY_LANGUAGE, {"ours": list(metadata.tables)}).all():
        connection.exec_driver_sql(f'ALTER TABLE {table} ALTER COLUMN "{column}" TYPE {type_} COLLATE "C"')


_BY_LANGUAGE = text("""
    SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod)
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relname = ANY(:ours) AND relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
      AND attnum > 0 AND NOT attisdropped AND attcollation NOT IN (0, '"C"'::regcollation)
    ORDER BY 1, 2
""")
