"""Migrations as Alembic runs them: apart, because it takes a third of a second to import."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

from gateway.errors import StorageUnavailable


def run(connection: Connection, to: str) -> None:
    """Bring the database to version *to*; see `upgrade`."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, to)
    except CommandError as error:
        raise StorageUnavailable(f"The database was made by a newer gateway: {error}") from error
