"""What every kind of test may ask for: one PostgreSQL for the whole run."""

from collections.abc import Iterator

import pytest

from tests.servers.postgres import PostgresServer, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Shared by all tests, each with a database of its own: not to be killed."""
    with postgres_server() as server:
        yield server
