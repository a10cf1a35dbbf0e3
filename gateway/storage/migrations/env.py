"""Run by Alembic: migrates over the connection that `upgrade` was given, whose transaction the caller owns."""

from alembic import context

from gateway.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=False,
)
context.run_migrations()
