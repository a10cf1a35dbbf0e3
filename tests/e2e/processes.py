"""The gateway and its surroundings as child processes, each with its output in a file."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Self

import httpx

from tests.servers.ports import free_port

COMMAND = str(Path(sys.executable).parent / "gateway")
ROOT = Path(__file__).parents[2]
ADMIN_KEY = "correct-horse-battery"
START_SECONDS = 30.0
SHOWN_BYTES = 6_000
EMPTY: Mapping[str, str] = MappingProxyType({})


class Process:
    """One child. `output` is what it has printed, over all of its lives."""

    def __init__(self, name: str, command: Sequence[str], *, environment: Mapping[str, str], directory: Path) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self.command = command
        self._environment = {**_clean_environment(), **environment}
        self._directory = directory
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def child(self) -> subprocess.Popen[bytes]:
        assert self._child is not None, f"{self.name} was never started"
        return self._child

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def is_up(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def spawn(self) -> None:
        """Start it, and do not wait for anything."""
        assert not self.is_up, f"{self.name} is up"
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self.command,
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def kill(self) -> None:
        """`kill -9`."""
        if self.is_up:
            self.child.kill()
        self.child.wait(10)

    def wait(self, seconds: float) -> int:
        """Its exit status.

        Raises:
            subprocess.TimeoutExpired: it is still up.
        """
        return self.child.wait(seconds)

    def close(self) -> None:
        if self._child is not None:
            self.kill()


class GatewayProcess(Process):
    """`gateway serve` on a database and a port of its own, which it keeps over restarts.

    *settings* are by their names in the environment, less `GATEWAY_`: `{"MAX_STREAMS": "2"}`.
    """

    def __init__(
        self, directory: Path, settings: Mapping[str, str], *, name: str = "gateway", port: int | None = None
    ) -> None:
        self.port = free_port() if port is None else port
        self.url = f"http://127.0.0.1:{self.port}"
        self.database = directory / f"{name}.db"
        environment = {
            "PORT": str(self.port),
            "DATABASE_URL": f"sqlite:///{self.database}",
            "ADMIN_KEY": ADMIN_KEY,
            "DESTINATION_ALLOW": '["127.0.0.0/8"]',
            **settings,
        }
        super().__init__(
            name,
            [COMMAND, "serve"],
            environment={f"GATEWAY_{name}": value for name, value in environment.items()},
            directory=directory,
        )

    def start(self) -> Self:
        """Start it, and come back when it is ready."""
        self.spawn()
        self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        with httpx.Client(trust_env=False) as client:
            while not self._is_ready(client):
                assert self.is_up, f"{self.name} ended with {self.child.returncode} instead of starting:\n{self.output}"
                assert time.monotonic() < deadline, f"{self.name} is not ready after {START_SECONDS} s:\n{self.output}"
                time.sleep(0.02)

    def _is_ready(self, client: httpx.Client) -> bool:
        try:
            return client.get(f"{self.url}/health/ready", timeout=2).status_code == 200
        except httpx.TransportError:
            return False


class Workshop:
    """Starts processes in one directory, and sees that none outlives the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            process.close()

    def keep(self, process: Process) -> None:
        self.processes.append(process)

    def gateway(
        self, settings: Mapping[str, str] = EMPTY, *, name: str = "gateway", port: int | None = None
    ) -> GatewayProcess:
        """A gateway that is ready."""
        return self.unstarted_gateway(settings, name=name, port=port).start()

    def unstarted_gateway(
        self, settings: Mapping[str, str] = EMPTY, *, name: str = "gateway", port: int | None = None
    ) -> GatewayProcess:
        gateway = GatewayProcess(self.directory, settings, name=name, port=port)
        self.keep(gateway)
        return gateway

    def logs(self) -> list[tuple[str, str]]:
        """The end of what each process has printed, for the report of a test that failed."""
        return [(f"{process.name} (its end)", process.output[-SHOWN_BYTES:]) for process in self.processes]


def _clean_environment() -> dict[str, str]:
    """Ours, without settings that a developer may have exported."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
