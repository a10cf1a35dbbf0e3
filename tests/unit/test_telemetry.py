"""Logs tell where something broke, and never what the variables held: keys and secrets are among them."""

import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from gateway.telemetry import configure_logs


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def break_with(key: str) -> None:
    raise RuntimeError(f"broken while holding {len(key)} characters")


@pytest.mark.parametrize("style", ["console", "json"])
@pytest.mark.parametrize("source", ["own", "library"])
def test_a_traceback_shows_no_variables(
    capsys: pytest.CaptureFixture[str], style: Literal["console", "json"], source: str
) -> None:
    configure_logs(style)
    secret = "whsec_dontshow"
    try:
        break_with(secret)
    except RuntimeError:
        if source == "own":
            structlog.get_logger("gateway.test").exception("it.failed", delivery="dlv_1")
        else:
            logging.getLogger("some.library").exception("it failed")
    told = capsys.readouterr().err
    assert "broken while holding 14 characters" in told
    assert "break_with" in told
    assert secret not in told


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json")
    structlog.get_logger("gateway.test").info("delivery.attempted", number=1)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["number"], line["level"]) == ("delivery.attempted", 1, "info")
    assert line["timestamp"].endswith("Z")
