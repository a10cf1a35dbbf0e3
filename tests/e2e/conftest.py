"""Workshops for processes, and their logs in the report of a test that fails."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import Workshop

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for value in item.funcargs.values():
            if isinstance(value, Workshop):
                report.sections.extend(value.logs())
    return report
