"""The processes of one repeat: started, talked to, and ended by their ids, whatever happens in between."""

import asyncio
import os
import re
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import msgspec

from gateway.bench.errors import BenchError
from gateway.bench.servers import new_database

START_SECONDS = 30
END_SECONDS = 8
"""For the gateway, which drains; whoever is still there then is killed."""
MAX_LINE_BYTES = 2**24
SHOWN_CHARACTERS = 2_000
_ROLES = "gateway.bench.roles"
_MAIN = "from gateway.cli import main; main()"
_COUNTED = f"from gateway.bench.roles.counting import start; start(); {_MAIN}"
_ADDRESS = re.compile(r"http://([^:/\s]+):(\d+)/v1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A gateway, or what stands in for one. *pid* None: it cannot be watched."""

    host: str
    port: int
    key: str
    pid: int | None
    child: "Child | None" = None
    """The process, where it is one of ours."""
    started_in: float | None = None
    """Seconds from its process to the first answer that it is ready."""

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def end(self) -> None:
        """End it now, if it is one of ours."""
        if self.child is not None:
            await self.child.end()

    @property
    def publishing(self) -> dict[str, Any]:
        """Where a publisher has to go."""
        return {"host": self.host, "port": self.port, "key": self.key, "path": "/v1/events"}


class Child:
    """A process that answers calls (`roles.answering`)."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    async def ask(self, call: str, **arguments: object) -> dict[str, Any]:
        """What it answers.

        Raises:
            BenchError: it could not do it, or has ended.
        """
        assert self.process.stdin is not None  # noqa: S101 - it was started with pipes
        try:
            self.process.stdin.write(msgspec.json.encode({"call": call, **arguments}) + b"\n")
            await self.process.stdin.drain()
        except ConnectionError:
            raise self.ended() from None
        line = await self.line()
        while line and not line.startswith(b'{"'):  # a gateway has greeted before
            line = await self.line()
        answer = msgspec.json.decode(line or b"{}")
        if "error" in answer:
            raise BenchError(f"the {self.name} failed: {answer['error']}")
        found: dict[str, Any] | None = answer.get("answer")
        if found is None:
            raise self.ended()
        return found

    async def statements(self) -> int:
        """How many statements a gateway that counts them has sent to its database so far."""
        return int((await self.ask("statements"))["statements"])

    async def line(self) -> bytes:
        assert self.process.stdout is not None  # noqa: S101 - it was started with pipes
        return await self.process.stdout.readline()

    def ended(self) -> BenchError:
        """That it has ended, and its last words."""
        return BenchError(f"the {self.name} has ended:\n{self._log.read_text(errors='replace')[-SHOWN_CHARACTERS:]}")

    async def end(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), END_SECONDS)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


class Crew:
    """`async with Crew(directory) as crew`: at its end all its processes have ended, and its files are gone.

    *server*: a PostgreSQL, by the URL of any of its databases, where databases are made instead, and dropped.
    """

    def __init__(self, directory: Path | None, server: str | None = None) -> None:
        self._parent = directory
        self._server = server
        self._databases = 0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        made = tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=self._parent)
        self._directory = Path(self._stack.enter_context(made))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def hire(self, role: str) -> Child:
        """A process of `roles`."""
        return await self.start(role.replace("_", " "), (sys.executable, "-m", f"{_ROLES}.{role}"), os.environ)

    async def baseline(self, role: str) -> tuple[Child, Target]:
        """One that stands in for the gateway."""
        child = await self.hire(role)
        port = (await child.ask("listen"))["port"]
        return child, Target(host="127.0.0.1", port=port, key="none", pid=child.pid)

    async def database(self) -> str:
        """The URL of a new, empty one."""
        self._databases += 1
        if self._server is not None:
            return await self._stack.enter_async_context(new_database(self._server))
        name = "gateway" if self._databases == 1 else f"gateway{self._databases}"
        return f"sqlite:///{self._directory / name}.db"

    def directory(self, name: str) -> Path:
        """For the files of somebody else."""
        made = self._directory / name
        made.mkdir()
        return made

    async def gateway(self, url: str | None = None, *, workers: int = 1, counted: bool = False) -> Target:
        """`gateway serve` on a port of its own, ready; on the database at *url*, or else a new one.

        *counted*: it can be asked for its `statements`.
        """
        key = secrets.token_urlsafe(24)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        environment |= {
            "GATEWAY_HOST": "127.0.0.1",
            "GATEWAY_PORT": "0",
            "GATEWAY_DATABASE_URL": url or await self.database(),
            "GATEWAY_ADMIN_KEY": key,
            "GATEWAY_DESTINATION_ALLOW": '["127.0.0.0/8"]',
        }
        several = () if workers == 1 else ("--workers", str(workers))
        command = (sys.executable, "-c", _COUNTED if counted else _MAIN, "serve", *several)
        began = time.monotonic()
        child = await self.start("gateway", command, environment)
        try:
            host, port = await asyncio.wait_for(_address(child), START_SECONDS)
            await asyncio.wait_for(_ready(f"http://{host}:{port}"), START_SECONDS)
        except TimeoutError:
            raise BenchError(f"the gateway did not start within {START_SECONDS} s") from None
        started_in = time.monotonic() - began
        return Target(host=host, port=port, key=key, pid=child.pid, child=child, started_in=started_in)

    async def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        """A process that is ended with the others."""
        log = self._directory / f"{name}.log"
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=environment,
                limit=MAX_LINE_BYTES,
                start_new_session=True,  # Ctrl-C is for the one who started them, who ends them in order
            )
        child = Child(name, process, log)
        self._stack.push_async_callback(child.end)
        return child


async def _address(child: Child) -> tuple[str, int]:
    """Where the gateway listens, from what it prints."""
    while line := await child.line():
        if found := _ADDRESS.search(line.decode(errors="replace")):
            return found[1], int(found[2])
    raise child.ended()


async def _ready(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=START_SECONDS) as client:
        while (await client.get("/health/ready")).status_code != 200:  # noqa: ASYNC110 - another process tells nobody
            await asyncio.sleep(0.05)
