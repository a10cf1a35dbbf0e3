"""`kill -9` on the real process in each state that its owner can see: it is as it was, and nothing is sent early.

In virtual time, and with every state that there is, the same is in tests/sending/test_restarts.py.
"""

import asyncio
import signal
import socket
from functools import partial

import pytest

from tests.e2e.api import Api, Json, api_of
from tests.e2e.processes import Workshop
from tests.e2e.receiver import Behaviour
from tests.e2e.receivers import receiver
from tests.e2e.waiting import eventually, eventually_answered

pytestmark = pytest.mark.timeout(120)

HOUR = 3_600.0
STATES = {
    "/held": Behaviour(status=429, headers={"Retry-After": "3600"}),
    "/waiting": Behaviour(status=500),
    "/gone": Behaviour(status=410),
    "/paused": Behaviour(),
}
SILENT = "/silent"
HEALTHY = "/healthy"


async def _publish(api: Api, number: int) -> str:
    return await api.publish({"type": "custom", "library_id": "acme", "id": f"e{number}", "data": {}})


async def _state(api: Api, ids: dict[str, str]) -> list[Json]:
    """What anybody can see of them."""
    deliveries = [await api.deliveries(subscription_id=id_) for id_ in ids.values()]
    whole = [[await api.call("GET", f"/v1/deliveries/{one['id']}") for one in some] for some in deliveries]
    subscriptions = [await api.call("GET", f"/v1/subscriptions/{id_}") for id_ in ids.values()]
    return [{"subscription": one, "deliveries": some} for one, some in zip(subscriptions, whole, strict=True)]


@pytest.mark.chaos
async def test_what_was_held_waiting_paused_or_disabled_is_so_still_and_what_was_in_flight_is_repeated(
    workshop: Workshop,
) -> None:
    gateway, posts = workshop.gateway({"RETRY_SCHEDULE": f"[{HOUR}, {HOUR}]"}), receiver(workshop)
    silent = posts.behave(SILENT, Behaviour(silent=True))
    async with api_of(gateway) as api:
        ids = {
            path: str((await api.subscribe(posts.behave(path, behaviour), types=["custom"]))["id"])
            for path, behaviour in STATES.items()
        }
        await api.call("POST", f"/v1/subscriptions/{ids['/paused']}/pause")
        in_flight = (await api.subscribe(silent, types=["custom"], timeout_seconds=60))["id"]
        await _publish(api, 0)

        async def all_tried() -> list[Json] | None:
            found = await _state(api, ids)
            tried = [delivery["attempt_count"] for one in found for delivery in one["deliveries"]]
            return found if sorted(tried) == [0, 1, 1, 1] else None

        before = await eventually_answered(all_tried, "each is in its state")
        await eventually(partial(posts.posts, SILENT), "one is in flight")
    assert [one["subscription"]["status"] for one in before] == ["active", "active", "disabled", "paused"]

    await asyncio.to_thread(gateway.kill)
    await asyncio.to_thread(gateway.start)
    async with api_of(gateway) as api:
        assert await _state(api, ids) == before
        await eventually(lambda: len(posts.posts(SILENT)) == 2, "what was in flight is made again")

        gateway.signal(signal.SIGTERM)  # and again, in the middle of a drain
        await eventually(lambda: _refuses(gateway.port), "it drains")
    await asyncio.to_thread(gateway.kill)
    posts.behave(SILENT, Behaviour())
    await asyncio.to_thread(gateway.start)
    async with api_of(gateway) as api:

        async def delivered() -> Json | None:
            one = await api.delivery(subscription_id=in_flight)
            return one if one["status"] == "delivered" else None

        one = await eventually_answered(delivered, "it is delivered at last")
        assert [attempt["number"] for attempt in one["attempts"]] == [1], "what was broken off did not count"
        assert len(posts.posts(SILENT)) == 3
        assert await _state(api, ids) == before
        await api.subscribe(posts.behave(HEALTHY, Behaviour()), types=["custom"])
        await _publish(api, 1)

        def arrived() -> bool:
            return [len(posts.posts(path)) for path in (SILENT, HEALTHY, "/waiting")] == [4, 1, 2]

        await eventually(arrived, "the next has come to those that nothing keeps it from")
        assert [len(posts.posts(path)) for path in ("/held", "/gone", "/paused")] == [1, 1, 0]


def _refuses(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) != 0
