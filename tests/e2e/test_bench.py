"""`gateway bench` at its smallest: its ledger balances and it leaves nothing behind. Never how fast anything was."""

import importlib.util
import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.cli import serve
from tests.e2e.processes import ADMIN_KEY, COMMAND, Process, Workshop
from tests.e2e.waiting import eventually
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.timeout(180)

SECONDS = 120.0
TINY = ("--repeats", "1", "--streams", "5", "--seconds", "0.5", "--connections", "4", "--history", "1500", "--json")
EVENTS = {
    "publish": 250,
    "stream": 210,
    "deliver": 150,
    "latency": 100,
    "paced": 210,
    "selective": 500,
    "storm": 210,
    "statements": 250,
    "backlog": 150,
    "growth": 250,
}
"""No whole number of batches, where there are any."""
LONG = ", in a log of 1,500 events"
PUBLISHED = {
    "publish": {"batches of 100 over 4 connections": 250, "single events over 4 connections": 62},
    "stream": {"a burst to 5 streams": 5 * 210, "20 events/s one by one to 5 streams": 5 * 10},
    "deliver": {"a backlog for 2 subscriptions, 64 in flight each": 2 * 150},
    "latency": {"200 events/s, from when each was due": 2 * 100},
    "paced": {"20 events/s one by one to 5 streams": 5 * 10, "a burst to 5 streams": 5 * 210},
    # What it is compared to counts, too.
    "selective": {"1000 events/s in tens, each for one of 5 streams": 2 * 500},
    "storm": {
        "5 streams come back for 210 events, what is in memory": 5 * (210 + 1),
        "5 streams come back for 210 events, what only the log has": 5 * (210 + 1),
    },
    "statements": {"batches of 100 over 4 connections": 250, "single events over 4 connections": 62},
    "backlog": {"150 events owed to each of 2 subscriptions": 2 * (150 + 1)},
    "growth": {
        f"batches of 100 over 4 connections{LONG}": 2 * 250,
        f"single events over 4 connections{LONG}": 2 * 62,
        f"5 streams resume 1000 events back{LONG}": 2 * 5 * 1000,
        f"pages of 500 events are listed{LONG}": 2 * 2 * 4 * 500,
        f"12 events are fanned out to 2 subscriptions{LONG}": 2 * 2 * 12,
    },
}
UNITS = {
    "publish": "events/s",
    "stream": "frames/s",
    "deliver": "deliveries/s",
    "latency": "ms",
    "paced": "ms",
    "selective": "µs/event",
    "storm": "s",
    "statements": "statements",
    "backlog": "s",
    "growth": "events/s",
}
TOGETHER = {"paced", "selective", "storm", "statements", "backlog", "growth"}
COMPARED = EVENTS.keys() - {"latency", "statements", "paced"}
"""`paced` is where nchan is installed."""


class Bench:
    """`gateway bench`, with its database and all its files in a directory of its own."""

    def __init__(self, workshop: Workshop, *arguments: str) -> None:
        name = f"bench{len(workshop.processes)}"
        self.files = workshop.directory / f"{name}-files"
        self.files.mkdir()
        self.process = Process(
            name,
            [COMMAND, "bench", *TINY, *arguments, "--directory", str(self.files)],
            environment={},
            directory=workshop.directory,
        )
        workshop.keep(self.process)
        self.process.spawn()

    def document(self, *, status: int = 0) -> dict[str, Any]:
        """What it prints, once it has ended with *status*."""
        assert self.process.wait(SECONDS) == status, self.process.output
        printed = self.process.output
        found: dict[str, Any] = json.JSONDecoder().raw_decode(printed, printed.index("{"))[0]
        return found


def small(workshop: Workshop, mode: str) -> Bench:
    return Bench(workshop, mode, "--events", str(EVENTS[mode]), "--subscriptions", "2")


@pytest.mark.parametrize("mode", sorted(EVENTS.keys() - TOGETHER))
def test_all_that_is_published_is_accounted_for(workshop: Workshop, mode: str) -> None:
    check(small(workshop, mode), mode)


@pytest.mark.scale
def test_so_it_is_in_the_modes_that_start_several_gateways(workshop: Workshop) -> None:
    # At once, because they wait for processes to start most of the time.
    for mode, bench in [(mode, small(workshop, mode)) for mode in sorted(TOGETHER)]:
        check(bench, mode)


def check(bench: Bench, mode: str) -> None:
    found = bench.document()
    assert (found["void"], found["repeats"]) == (False, 1)
    assert {one["name"]: one["ledger"]["published"] for one in found["measurements"]} == PUBLISHED[mode]
    for one in found["measurements"]:
        assert one["mode"] == mode
        check_measurement(one)
    assert found["measurements"][0]["figures"][0]["unit"] == UNITS[mode]
    assert list(bench.files.iterdir()) == []


@pytest.mark.scale
@pytest.mark.skipif(
    all(option.name != "workers" for option in serve.command.params), reason="the gateway has one process only"
)
def test_several_processes_are_compared_to_one(workshop: Workshop, postgres: PostgresServer) -> None:
    bench = Bench(workshop, "workers", "--events", "250", "--server", postgres.url("postgres"))
    found = bench.document()
    assert {one["name"]: one["ledger"]["published"] for one in found["measurements"]} == {
        "batches of 100 over 4 connections": 2 * 250,
        "single events over 4 connections": 2 * 62,
        "a burst to 5 streams": 2 * 5 * 250,
        "a backlog for 8 subscriptions, 64 in flight each": 2 * 8 * 250,  # a lane each: one process has each of them
    }
    for one in found["measurements"]:
        check_measurement(one)


def check_measurement(one: dict[str, Any]) -> None:
    ledger = one["ledger"]
    assert ledger["published"] == ledger["delivered"] + ledger["owed"]
    assert {name: ledger[name] for name in ("dead", "missing", "strange", "refused")} == dict.fromkeys(
        ("dead", "missing", "strange", "refused"), 0
    )
    for figure in one["figures"]:
        assert figure["min"] <= figure["median"] <= figure["max"]
        assert figure["values"] == [figure["median"]]
        compares = figure["baseline"] is not None and figure["baseline"]["median"] != 0  # so little is not measured
        assert compares == (figure["ratio"] is not None)
    compared = [figure for figure in one["figures"] if figure["ratio"] is not None]
    assert compared or one["mode"] not in COMPARED
    assert {"gateway CPU", "gateway"} <= {each["name"] for each in one["figures"] + one["processes"]}
    assert any(process["load"] for process in one["processes"])


@pytest.mark.parametrize("mode", ["deliver", "latency"])
def test_a_receiver_that_forgets_makes_it_void(workshop: Workshop, mode: str) -> None:
    found = Bench(workshop, mode, "--events", "150", "--losing", "50").document(status=1)
    [one] = found["measurements"]
    assert (found["void"], one["void"]) == (True, True)
    assert one["ledger"]["missing"] == {"deliver": 3, "latency": 2}[mode]


def test_a_gateway_that_runs_is_measured_where_it_is(workshop: Workshop) -> None:
    gateway = workshop.gateway()
    place = ("--url", gateway.url, "--key", ADMIN_KEY)
    found = Bench(workshop, "publish", "--events", "250", *place).document()
    for one in found["measurements"]:
        assert one["ledger"]["published"] == one["ledger"]["delivered"] > 0
        assert "gateway" not in {process["name"] for process in one["processes"]}, "nobody has said which process it is"
    assert gateway.is_up


@pytest.mark.parametrize(
    ("mode", "said"), [("backlog", "leave --url out"), ("growth", "leave --url out"), ("workers", "leave --url out")]
)
def test_a_gateway_that_runs_is_not_filled(workshop: Workshop, mode: str, said: str) -> None:
    bench = Bench(workshop, mode, "--url", "http://127.0.0.1:9", "--key", ADMIN_KEY)
    assert bench.process.wait(SECONDS) == 1
    assert said in bench.process.output


def test_processes_need_a_postgresql_to_share(workshop: Workshop) -> None:
    bench = Bench(workshop, "workers")
    assert bench.process.wait(SECONDS) == 1
    assert "name one with --server" in bench.process.output


def test_a_key_that_may_not_publish_is_said(workshop: Workshop) -> None:
    gateway = workshop.gateway()
    bench = Bench(workshop, "publish", "--events", "10", "--url", gateway.url, "--key", "not-a-key")
    assert bench.process.wait(SECONDS) == 1
    assert "not one event was accepted" in bench.process.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_ends_all_that_it_has_started(workshop: Workshop, number: signal.Signals) -> None:
    bench = Bench(workshop, "latency", "--rate", "1", "--seconds", "600")
    parent = psutil.Process(bench.process.child.pid)
    started = await eventually(
        lambda: serving(parent, bench.files), "its gateway is up, and those that load it", within=60
    )
    bench.process.signal(number)
    assert bench.process.wait(SECONDS) == 130, bench.process.output
    assert [child for child in started if child.is_running()] == []
    assert list(bench.files.iterdir()) == []
    assert "Traceback" not in bench.process.output


def serving(parent: psutil.Process, files: Path) -> list[psutil.Process]:
    """All children, once the gateway among them has made its database."""
    return list(parent.children(recursive=True)) if list(files.glob("*/gateway.db")) else []


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is not None, reason="it can draw here")
def test_a_drawing_without_matplotlib_is_refused_before_anything_is_done(workshop: Workshop) -> None:
    bench = Bench(workshop, "publish", "--plot", "x.png")
    assert bench.process.wait(SECONDS) == 1
    assert "--plot needs matplotlib, which is not installed" in bench.process.output
    assert "1 of 1" not in bench.process.output
