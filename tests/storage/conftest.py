"""A migrated database for each test, in each engine; made once, then copied."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.storage.database import Database
from gateway.storage.engines import database_of
from tests.builders import HandClock
from tests.servers.postgres import PostgresServer
from tests.storage.arrange import Stores


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "gateway.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def path(migrated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(migrated, tmp_path / "gateway.db"))


@pytest.fixture(scope="session")
def shared_postgres_url(postgres: PostgresServer) -> str:
    url = postgres.create()
    _migrate(url)
    postgres.execute(_REMEMBER, on=url)
    return url


@pytest.fixture
def postgres_url(postgres: PostgresServer, shared_postgres_url: str) -> Iterator[str]:
    """Of a database as it is when it was just migrated. It is put back into that state: to make one takes longer."""
    yield shared_postgres_url
    postgres.execute(_RESTORE, on=shared_postgres_url)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """Of a database that is the test's own. A module that is about one engine has a `url` of its own."""
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('path')}"
    made: str = request.getfixturevalue("postgres_url")
    return made


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def database(url: str, clock: HandClock) -> AsyncIterator[Database]:
    async with database_of(url, clock=clock) as database:
        yield database


@pytest.fixture
def stores(database: Database, clock: HandClock) -> Stores:
    return Stores.over(database, clock)


def _migrate(url: str) -> None:
    async def make() -> None:
        async with database_of(url):
            pass

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:  # leaves alone whatever loop is set
        runner.run(make())


_REMEMBER = """
    DO $$ DECLARE name text; BEGIN
        CREATE SCHEMA fresh;
        FOR name IN SELECT relname FROM pg_class
            WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition LOOP
            EXECUTE format('CREATE TABLE fresh.%I AS TABLE public.%I', name, name);
        END LOOP;
    END $$
"""
_RESTORE = """
    DO $$ DECLARE name text; BEGIN
        PERFORM pg_terminate_backend(pid, 1000) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid();
        FOR name IN SELECT relname FROM pg_class
            WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition LOOP
            IF pg_relation_size(format('public.%I', name)) > 100000 THEN
                EXECUTE format('TRUNCATE public.%I', name);
            ELSE
                EXECUTE format('DELETE FROM public.%I', name);
            END IF;
            EXECUTE format('INSERT INTO public.%I TABLE fresh.%I', name, name);
        END LOOP;
    END $$
"""
