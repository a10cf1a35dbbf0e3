"""A NATS server of the tests' own, on a port of this machine, that can be killed and started again."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_connection
from typing import Self

from tests.servers.ports import free_port

PROGRAM = Path(sys.executable).parent / "nats-server"
START_SECONDS = 30.0
MAX_PAYLOAD = 100_000


class NatsServer:
    """Not started yet."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._settings = directory / "nats.conf"
        self._settings.write_text(f"listen: 127.0.0.1:{self.port}\nmax_payload: {MAX_PAYLOAD}\n")
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        self._child = subprocess.Popen(
            [PROGRAM, "-c", self._settings],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self.is_up:
            assert self._child.poll() is None, "the NATS server ended"
            assert time.monotonic() < deadline, f"the NATS server is not up after {START_SECONDS} s"
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        assert self._child is not None
        self._child.kill()
        self._child.wait(START_SECONDS)

    @property
    def is_up(self) -> bool:
        try:
            create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


@contextmanager
def nats_server(directory: Path) -> Iterator[NatsServer]:
    """One that is up."""
    server = NatsServer(directory).start()
    try:
        yield server
    finally:
        server.kill()
