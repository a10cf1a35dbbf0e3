"""Of an event, what each subscription got, or why it got nothing."""

from typing import Any

import httpx
import pytest

from gateway.events import Cursor
from gateway.filters import Filter
from gateway.keys import Scope
from gateway.ports.desk import DeliveryRecord, Outcome
from gateway.subscriptions import Interest
from tests.builders import a_draft
from tests.http.conftest import Api
from tests.http.test_deliveries import DEAD, PENDING


def an_outcome(id_: str, *deliveries: DeliveryRecord, is_known: bool = True, since: int = 0, **filter_: Any) -> Outcome:
    interest = Interest(subscription_id=id_, filter=Filter(**filter_), libraries=None, since=Cursor(since))
    return Outcome(
        subscription_id=id_, deliveries=deliveries, interest=interest, is_known=is_known, fanned_out=Cursor(9)
    )


@pytest.fixture
async def owner(api: Api) -> httpx.AsyncClient:
    await api.log.append([[a_draft(id="evt_1", library_id="acme")]])
    other = frozenset({"other"})
    api.desk.became_of["evt_1"] = [
        an_outcome("sub_5", since=7, is_known=False),
        an_outcome("sub_4", types=other),
        an_outcome("sub_3", types=other, is_known=False),
        an_outcome("sub_2", DEAD, PENDING),
        an_outcome("sub_1", is_known=False),
    ]
    return await api.client(Scope.SUBSCRIPTIONS)


async def test_each_subscription_has_its_deliveries_or_a_reason(owner: httpx.AsyncClient) -> None:
    page = (await owner.get("/v1/events/evt_1/deliveries")).json()

    assert page["next_page_token"] is None
    rows = [
        (row["subscription_id"], row["delivery"] and row["delivery"]["id"], row["reason"], row["by_present_filter"])
        for row in page["data"]
    ]
    assert rows == [
        ("sub_5", None, "created later", False),
        ("sub_4", None, "filtered: type", False),
        ("sub_3", None, "filtered: type", True),
        ("sub_2", "dlv_3", None, False),
        ("sub_2", "dlv_1", None, False),
        ("sub_1", None, "filter changed", True),
    ]
    assert page["data"][3]["delivery"]["status"] == "dead"


async def test_a_page_is_of_so_many_subscriptions(owner: httpx.AsyncClient) -> None:
    path, seen = "/v1/events/evt_1/deliveries?page_size=2", []
    page = (await owner.get(path)).json()
    while True:
        seen.append([row["subscription_id"] for row in page["data"]])
        if (token := page["next_page_token"]) is None:
            break
        page = (await owner.get(f"{path}&page_token={token}")).json()

    assert seen == [["sub_5", "sub_4"], ["sub_3", "sub_2", "sub_2"], ["sub_1"]]


async def test_a_token_is_good_for_its_own_event_alone(api: Api, owner: httpx.AsyncClient) -> None:
    await api.log.append([[a_draft(id="evt_2", library_id="acme")]])
    token = (await owner.get("/v1/events/evt_1/deliveries?page_size=2")).json()["next_page_token"]

    answer = await owner.get(f"/v1/events/evt_2/deliveries?page_size=2&page_token={token}")

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/page_token")


async def test_only_an_event_that_is_in_the_log_and_can_be_seen_is_explained(
    api: Api, owner: httpx.AsyncClient
) -> None:
    holder = await api.client(Scope.SUBSCRIPTIONS, libraries=["acme"])
    stranger = await api.client(Scope.SUBSCRIPTIONS, libraries=["other"])
    reader = await api.client(Scope.STREAM)

    assert (await holder.get("/v1/events/evt_1/deliveries")).json() == {"data": [], "next_page_token": None}
    assert (await stranger.get("/v1/events/evt_1/deliveries")).status_code == 404
    assert (await reader.get("/v1/events/evt_1/deliveries")).status_code == 403
    assert (await owner.get("/v1/events/evt_9/deliveries")).status_code == 404
    api.log.drop(Cursor(1))
    assert (await owner.get("/v1/events/evt_1/deliveries")).status_code == 404
