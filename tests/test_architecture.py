"""Imports: they point downward only (the contract of pyproject.toml), and are no more than what is needed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_imports_point_downward_only() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_gateway_on_sqlite_starts_without_what_only_others_need() -> None:
    found = subprocess.run([sys.executable, "-c", _START_ON_SQLITE], capture_output=True, text=True, check=True).stdout
    assert found.split() == []


_START_ON_SQLITE = """
import sys
from gateway.app import Gateway
from gateway.settings import Settings
Gateway(Settings(database_url="sqlite:///nowhere.db"))
print(*{"asyncpg", "alembic", "nats", "sqlalchemy.orm", "sqlalchemy.dialects.postgresql"} & set(sys.modules))
"""
