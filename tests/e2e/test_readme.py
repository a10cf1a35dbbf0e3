"""README's five-minute tour, run as it is printed: every fenced block marked `sh tour`, in one shell, in order."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import COMMAND, ROOT
from tests.servers.ports import free_port

STEP = "=== step "
TOUR_SECONDS = 100

pytestmark = pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("curl")), reason="the tour is for a shell with curl"
)


def _blocks() -> list[str]:
    return re.findall(r"^```sh tour\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)


def _run(blocks: list[str], directory: Path, ports: dict[str, int]) -> list[str]:
    """What each block prints. Their two ports are exchanged for free ones; nothing else is changed."""
    script = "set -e\n" + "\n".join(f"echo; echo '{STEP}'\n{block}" for block in blocks)
    for printed, port in ports.items():
        script = re.sub(rf"\b{printed}\b", str(port), script)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment |= {"PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}", "GATEWAY_PORT": str(ports["8000"])}
    with (directory / "output").open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "-c", script],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = shell.wait(TOUR_SECONDS)
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)  # with what it has started
                shell.wait()
    text = (directory / "output").read_text()
    assert status == 0, text
    return text.split(STEP)[1:]


def _json_in(text: str) -> list[Any]:
    """The JSON objects that stand in *text*, whatever else is printed around them."""
    found, decoder, place = [], json.JSONDecoder(), 0
    while (place := text.find("{", place)) >= 0:
        try:
            value, place = decoder.raw_decode(text, place)
            found.append(value)
        except ValueError:
            place += 1
    return found


def test_the_five_minute_tour_works_as_printed(tmp_path: Path) -> None:
    blocks = _blocks()
    assert len(blocks) == 10
    _start, _ready, published, stream, subscribed, delivered, failed, redelivered, replayed, _end = _run(
        blocks, tmp_path, {"8000": free_port(), "9000": free_port()}
    )
    [receipt] = [found for found in _json_in(published) if "cursor" in found]
    assert receipt["duplicate"] is False
    assert f"id: {receipt['cursor']}\nevent: document.added\ndata: " in stream
    [subscription] = [found for found in _json_in(subscribed) if "url" in found]
    assert subscription["secret"].startswith("whsec_")
    assert "signature good" in delivered
    [dead_letter] = next(found["data"] for found in _json_in(failed) if "data" in found and "next_page_token" in found)
    assert (dead_letter["reason"], dead_letter["attempt_count"]) == ("exhausted", 2)
    [delivery] = [found for found in _json_in(redelivered) if found.get("attempts")]
    assert delivery["status"] == "delivered"
    assert [attempt["status_code"] for attempt in delivery["attempts"]] == [500, 500, 204]
    [replay] = [found for found in _json_in(replayed) if "matched" in found]
    assert replay["matched"] == 1, "the event from before the subscription"
    assert receipt["id"] in replayed
    assert "signature good" in replayed
