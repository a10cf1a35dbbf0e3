"""A migrated database in a file of its own for each test; made once, then copied."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.storage.database import Database
from tests.builders import HandClock
from tests.storage.arrange import Stores


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "gateway.db"

    async def make() -> None:
        async with Database(f"sqlite:///{path}"):
            pass

    asyncio.run(make())
    return path


@pytest.fixture
def path(migrated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(migrated, tmp_path / "gateway.db"))


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def database(path: Path, clock: HandClock) -> AsyncIterator[Database]:
    async with Database(f"sqlite:///{path}", clock=clock) as database:
        yield database


@pytest.fixture
def stores(database: Database, clock: HandClock) -> Stores:
    return Stores.over(database, clock)
