"""PostgreSQL: the log and everything else in a server that many processes may share."""

from gateway.storage.engines.postgres.database import PostgresDatabase

__all__ = ["PostgresDatabase"]
