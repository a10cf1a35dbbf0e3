"""The supervisor of workers that end too soon. Its workers here are short scripts, not gateways."""

import socket
import sys
from collections.abc import Iterator

import pytest

from gateway.cli.workers import LONGEST_PAUSE, SHORTEST_PAUSE, STEADY_SECONDS, Inherited, Workers

READY = "import socket, sys; socket.socket(fileno=int(sys.argv[1].split(':')[2])).send(b'r'); "


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


class Supervised:
    """One worker after the other, each of which seems to live for so long, until there were so many pauses or ends."""

    def __init__(
        self, script: str, listener: socket.socket, *, lives: float = 0, pauses: int = 100, ends: int = 100
    ) -> None:
        self.pauses: list[float] = []
        self.banners = 0
        self._pauses = pauses
        self._ends = ends
        self._lives = lives
        self._looks = 0
        self.workers = Workers(
            [sys.executable, "-c", script],
            listener,
            count=1,
            ready=self._ready,
            pause=self._pause,
            monotonic=self._monotonic,
        )

    def _monotonic(self) -> float:
        """It is looked at when one starts, and when it has ended."""
        self._looks += 1
        if self._looks == 2 * self._ends:
            self.workers.stop()
        return self._looks * self._lives

    def _ready(self) -> None:
        self.banners += 1

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if len(self.pauses) == self._pauses:
            self.workers.stop()


async def test_one_that_ends_at_once_is_started_again_later_and_later(listener: socket.socket) -> None:
    supervised = Supervised(READY + "sys.exit(3)", listener, pauses=10)
    assert await supervised.workers.run() == 0
    assert supervised.pauses[:3] == [SHORTEST_PAUSE, 2 * SHORTEST_PAUSE, 4 * SHORTEST_PAUSE]
    assert supervised.pauses[-1] == LONGEST_PAUSE
    assert supervised.banners == 1


async def test_one_that_has_been_up_for_long_is_replaced_at_once(listener: socket.socket) -> None:
    supervised = Supervised(READY + "sys.exit(3)", listener, ends=3, lives=STEADY_SECONDS)
    assert await supervised.workers.run() == 0
    assert (supervised.pauses, supervised.banners) == ([], 1)


async def test_a_first_one_that_cannot_start_stops_all_with_its_status(listener: socket.socket) -> None:
    supervised = Supervised("import sys; sys.exit(3)", listener)
    assert await supervised.workers.run() == 3
    assert (supervised.pauses, supervised.banners) == ([], 0)


def test_what_is_inherited_is_read_as_it_was_written() -> None:
    inherited = Inherited(number=1, listener=7, lifeline=9)
    assert Inherited.read(str(inherited)) == inherited
