"""A disk that takes no more: nothing is half done, and all is well again when there is room, without a restart."""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.api import Api, Json, api_of
from tests.e2e.processes import GatewayProcess, Workshop
from tests.e2e.receivers import receiver
from tests.e2e.waiting import eventually_answered

LARGE = "x" * 60_000
TMPFS_BYTES = 4 * 2**20


def _event(id_: str, text: str = LARGE) -> Json:
    return {"type": "custom", "library_id": "acme", "id": id_, "data": {"text": text}}


@contextmanager
def _files_no_larger_than(gateway: GatewayProcess, size: int) -> Iterator[None]:
    """As a full disk does, writes fail: the kernel's limit on the size of a process's files is lowered for a while."""
    soft, hard = resource.prlimit(gateway.child.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.child.pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.prlimit(gateway.child.pid, resource.RLIMIT_FSIZE, (soft, hard))


async def _publish_until_refused(api: Api) -> list[str]:
    """The ids of what was accepted before the disk was full."""
    accepted: list[str] = []
    for number in range(500):
        answer = await api.client.post("/v1/events", json=[_event(f"fill:{number}:{part}") for part in range(3)])
        if answer.status_code == 503:
            assert answer.headers["content-type"].startswith("application/problem+json")
            assert answer.json()["type"] == "/problems/overloaded"
            assert int(answer.headers["retry-after"]) > 0
            return accepted
        assert answer.status_code == 202, answer.text
        accepted += [receipt["id"] for receipt in answer.json()["data"]]
    raise AssertionError("the disk never became full")


async def _check_well(api: Api, accepted: list[str], delivered_to: str) -> None:
    """Exactly what was accepted is there, new events are taken, and all of it is delivered."""

    async def publish_again() -> bool:
        answer = await api.client.post("/v1/events", json=_event("afterwards", "there is room"))
        assert answer.status_code in {200, 202, 503}
        return answer.status_code != 503

    await eventually_answered(publish_again, "it takes events again, without a restart")
    there = [event["id"] for event in await api.events()]
    assert there == [*accepted, "afterwards"]

    async def all_delivered() -> bool:
        found = await api.deliveries(subscription_id=delivered_to, status="delivered")
        return {delivery["event_id"] for delivery in found} == set(there)

    await eventually_answered(all_delivered, "what was owed is delivered")


async def test_a_full_disk_is_a_503_that_leaves_nothing_half_done(workshop: Workshop) -> None:
    gateway, posts = workshop.gateway(), receiver(workshop)
    async with api_of(gateway) as api:
        subscription = await api.subscribe(posts.url + "/hooks")
        with _files_no_larger_than(gateway, 3 * 2**20):
            accepted = await _publish_until_refused(api)
            assert [event["id"] for event in await api.events()] == accepted, "what is there can still be read"
            assert (await api.client.get("/health/live")).status_code == 200
        await _check_well(api, accepted, subscription["id"])
    assert gateway.is_up
    gateway.kill()
    gateway.start()
    async with api_of(gateway) as api:
        assert [event["id"] for event in await api.events()] == [*accepted, "afterwards"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_file_system_without_room_is_a_503_and_recovers_when_room_is_made(
    small_disk: Path, workshop: Workshop
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(TMPFS_BYTES // 4))
    posts = receiver(workshop)
    gateway = workshop.gateway({"DATABASE_URL": f"sqlite:///{small_disk}/gateway.db"})
    async with api_of(gateway) as api:
        subscription = await api.subscribe(posts.url + "/hooks")
        accepted = await _publish_until_refused(api)
        ballast.unlink()
        await _check_well(api, accepted, subscription["id"])
