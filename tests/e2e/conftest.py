"""Workshops for processes, and their logs in the report of a test that fails."""

import json
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import GatewayProcess, Workshop
from tests.e2e.receivers import ReceiverProcess, receiver

pytest.register_assert_rewrite("tests.e2e.ledger", "tests.e2e.api")


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    """For processes of this test alone."""
    with Workshop(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared_workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """For processes that all tests of a module use."""
    with Workshop(tmp_path_factory.mktemp("shared")) as made:
        yield made


@pytest.fixture(scope="module")
def pages(shared_workshop: Workshop) -> ReceiverProcess:
    """Serves a page: another port is another origin."""
    return receiver(shared_workshop)


@pytest.fixture(scope="module")
def gateway(shared_workshop: Workshop, pages: ReceiverProcess) -> GatewayProcess:
    """One whose streams *pages* may read: for all tests of a module, each with a library of its own."""
    return shared_workshop.gateway({"CORS_ORIGINS": json.dumps([pages.url]), "STREAM_HEARTBEAT_SECONDS": "1"})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for value in item.funcargs.values():
            if isinstance(value, Workshop):
                report.sections.extend(value.logs())
    return report
