from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog.testing


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What was logged; nothing is printed."""
    with structlog.testing.capture_logs() as captured:
        yield captured
