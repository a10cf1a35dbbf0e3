"""A receiver process, seen from the test: what it got, and how it is told to behave."""

import sys
import time
from pathlib import Path
from typing import Self

import httpx
import msgspec

from tests.e2e.processes import ROOT, START_SECONDS, Process, Workshop
from tests.e2e.receiver import Behaviour, Post
from tests.servers.ports import free_port


class ReceiverProcess(Process):
    """`python -m tests.e2e.receiver`. Its record lives as long as the directory."""

    def __init__(self, directory: Path, *, name: str = "receiver") -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._record = directory / f"{name}.jsonl"
        self._read_bytes = 0
        self._posts: list[Post] = []
        self._decoder = msgspec.json.Decoder(Post)
        super().__init__(
            name,
            [sys.executable, "-m", "tests.e2e.receiver", "--port", str(self.port), "--record", str(self._record)],
            environment={"PYTHONPATH": str(ROOT)},
            directory=directory,
        )

    def start(self) -> Self:
        self.spawn()
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self.is_up, f"{self.name} ended instead of starting:\n{self.output}"
            assert time.monotonic() < deadline, f"{self.name} does not answer:\n{self.output}"
            time.sleep(0.02)
        return self

    def behave(self, path: str, behaviour: Behaviour) -> str:
        """From now on POSTs to *path* get *behaviour*. Answers the URL to subscribe."""
        answer = httpx.put(
            f"{self.url}/behaviours{path}", content=msgspec.json.encode(behaviour), trust_env=False, timeout=10
        )
        answer.raise_for_status()
        return self.url + path

    def posts(self, path: str | None = None) -> list[Post]:
        """What has come so far, in order; to *path* alone, or to any."""
        if self._record.exists():
            with self._record.open("rb") as record:
                record.seek(self._read_bytes)
                lines = record.read().split(b"\n")
            whole = lines[:-1]  # what follows the last line's end is being written
            self._read_bytes += sum(len(line) + 1 for line in whole)
            self._posts += [self._decoder.decode(line) for line in whole]
        return [post for post in self._posts if path is None or post.path == path]

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/page", trust_env=False, timeout=2).is_success
        except httpx.TransportError:
            return False


def receiver(workshop: Workshop, *, name: str = "receiver") -> ReceiverProcess:
    """One that is up, and ends with *workshop*."""
    made = ReceiverProcess(workshop.directory, name=name)
    workshop.keep(made)
    return made.start()
