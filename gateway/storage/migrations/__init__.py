"""The database's versions, oldest first, in `versions/`. `upgrade` brings a database to the newest."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, text

from gateway.errors import StorageUnavailable
from gateway.storage.tables import metadata


def upgrade(connection: Connection, *, to: str = "head") -> None:
    """Bring the database behind *connection* to the newest version, or *to*, in the transaction that is open on it.

    Raises:
        StorageUnavailable: it is of a version that is not known here, so of a newer gateway.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, to)
    except CommandError as error:
        raise StorageUnavailable(f"The database was made by a newer gateway: {error}") from error


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
