"""The database's versions, oldest first, in `versions/`. `upgrade` brings a database to the newest."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

from gateway.errors import StorageUnavailable


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
