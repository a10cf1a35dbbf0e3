"""Delivery statistics as JSON: shapes, pages, and what is refused."""

from datetime import timedelta

import httpx
import pytest

from gateway.keys import Scope
from gateway.rollups.histogram import add
from gateway.rollups.rollups import Figures, Grouping, Interval, Rollup, Standing
from tests.http.conftest import START, Api
from webhooks.endpoints import Health

HOUR = timedelta(hours=1)


@pytest.fixture
async def owner(api: Api) -> httpx.AsyncClient:
    return await api.client(Scope.SUBSCRIPTIONS)


def some_figures() -> Figures:
    figures = Figures(attempts=4, failed_attempts=1, delivered=3, dead=1)
    for milliseconds in (10, 10, 10, 4_000):
        add(figures.durations, timedelta(milliseconds=milliseconds))
    return figures


def a_rollup(*, hours_ago: int = 0, group: str | None = None) -> Rollup:
    return Rollup(start=Interval.HOUR.start(START) - hours_ago * HOUR, group=group, figures=some_figures())


async def made(owner: httpx.AsyncClient) -> str:
    answer = await owner.post("/v1/subscriptions", json={"url": "https://example.com"})
    id_: str = answer.json()["id"]
    return id_


# --- over time -------------------------------------------------------------------------------------------------------


async def test_a_row_says_what_is_counted_and_in_which_unit(api: Api, owner: httpx.AsyncClient) -> None:
    api.rollups.kept = [a_rollup()]

    answer = await owner.get("/v1/stats/deliveries")

    (row,) = answer.json()["data"]
    durations = row.pop("attempt_duration_ms")
    assert answer.json()["next_page_token"] is None
    assert row == {
        "start": "2025-10-27T06:00:00.000000Z",
        "subscription_id": None,
        "type": None,
        "library_id": None,
        "attempts": 4,
        "failed_attempts": 1,
        "delivered": 3,
        "dead": 1,
        "publish_to_delivered_ms": {"p50": None, "p95": None, "p99": None},
    }
    assert durations["p50"] == pytest.approx(10, rel=0.05)
    assert durations["p95"] == durations["p99"] == pytest.approx(4_000, rel=0.05)


async def test_unless_asked_otherwise_it_is_the_last_day_by_the_hour(api: Api, owner: httpx.AsyncClient) -> None:
    await owner.get("/v1/stats/deliveries")

    (query,) = api.rollups.queries
    assert (query.interval, query.grouping, query.since, query.until, query.subscription_id, query.libraries) == (
        Interval.HOUR,
        Grouping.NOTHING,
        START - timedelta(hours=24),
        None,
        None,
        None,
    )


async def test_every_question_reaches_the_rollups(api: Api) -> None:
    confined = await api.client(Scope.SUBSCRIPTIONS, libraries=["acme"])

    await confined.get(
        "/v1/stats/deliveries?interval=minute&group_by=type&since=2025-10-27T06:00:00Z&until=2025-10-27T07:00:00Z"
        "&subscription_id=sub_1&page_size=7"
    )

    (query,) = api.rollups.queries
    assert (query.interval, query.grouping, query.subscription_id) == (Interval.MINUTE, Grouping.TYPE, "sub_1")
    assert (query.since, query.until) == (START - timedelta(minutes=1), START + timedelta(minutes=59))
    assert (query.libraries, query.limit) == (frozenset({"acme"}), 7)


@pytest.mark.parametrize(
    ("group_by", "field"), [("subscription", "subscription_id"), ("type", "type"), ("library", "library_id")]
)
async def test_a_group_is_named_where_it_belongs(api: Api, owner: httpx.AsyncClient, group_by: str, field: str) -> None:
    api.rollups.kept = [a_rollup(group="x"), a_rollup(group=None)]

    rows = (await owner.get(f"/v1/stats/deliveries?group_by={group_by}")).json()["data"]

    assert [row[field] for row in rows] == ["x", None]
    others = {"subscription_id", "type", "library_id"} - {field}
    assert {rows[0][other] for other in others} == {None}


async def test_pages_follow_one_another(api: Api, owner: httpx.AsyncClient) -> None:
    api.rollups.kept = [a_rollup(hours_ago=age, group=group) for age in range(2) for group in ("b:1", "a")]
    rows: list[tuple[str, str]] = []
    path = "/v1/stats/deliveries?group_by=library&page_size=3"
    token: str | None = ""
    while token is not None:
        page = (await owner.get(f"{path}&page_token={token}" if token else path)).json()
        rows += [(row["start"][11:13], row["library_id"]) for row in page["data"]]
        token = page["next_page_token"]
    assert rows == [("06", "b:1"), ("06", "a"), ("05", "b:1"), ("05", "a")]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("interval=week", "/interval"),
        ("interval=minute&interval=hour", "/interval"),
        ("group_by=", "/group_by"),
        ("group_by=url", "/group_by"),
        ("since=yesterday", "/since"),
        ("until=2025-10-27", "/until"),
        ("page_size=0", "/page_size"),
        ("page_token=abc", "/page_token"),
        ("subscription_id=a&subscription_id=b", "/subscription_id"),
    ],
)
async def test_a_bad_parameter_is_named(api: Api, owner: httpx.AsyncClient, query: str, pointer: str) -> None:
    answer = await owner.get(f"/v1/stats/deliveries?{query}")

    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert api.rollups.queries == []


async def test_a_token_of_another_question_is_refused(api: Api, owner: httpx.AsyncClient) -> None:
    api.rollups.kept = [a_rollup(), a_rollup(hours_ago=1)]
    token = (await owner.get("/v1/stats/deliveries?page_size=1")).json()["next_page_token"]

    answer = await owner.get(f"/v1/stats/deliveries?interval=day&page_token={token}")

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/page_token")


async def test_the_earliest_time_there_is_can_be_asked_for(owner: httpx.AsyncClient) -> None:
    early = "0001-01-01T00:00:00Z"
    assert (await owner.get(f"/v1/stats/deliveries?since={early}&until={early}")).status_code == 200


# --- one subscription ------------------------------------------------------------------------------------------------


async def test_how_a_new_subscription_stands(owner: httpx.AsyncClient) -> None:
    id_ = await made(owner)

    answer = await owner.get(f"/v1/subscriptions/{id_}/stats")

    assert answer.json() == {
        "subscription_id": id_,
        "counts": {"pending": 0, "delivered": 0, "dead": 0, "cancelled": 0},
        "success_rate": None,
        "backlog": 0,
        "oldest_due_at": None,
        "consecutive_failures": 0,
        "circuit": {"state": "closed", "until": None},
        "held_until": None,
        "since": "2025-10-26T06:00:00.000000Z",
        "attempts": 0,
        "failed_attempts": 0,
        "attempt_duration_ms": {"p50": None, "p95": None, "p99": None},
        "publish_to_delivered_ms": {"p50": None, "p95": None, "p99": None},
    }


async def test_how_a_busy_subscription_stands(api: Api, owner: httpx.AsyncClient) -> None:
    id_ = await made(owner)
    api.rollups.stands = Standing(
        counts={"pending": 2, "delivered": 3, "dead": 1, "cancelled": 5},
        recent=some_figures(),
        oldest_due_at=START - HOUR,
        health=Health(consecutive_failures=4, circuit_open_until=START + HOUR, held_until=START + 2 * HOUR),
    )

    stats = (await owner.get(f"/v1/subscriptions/{id_}/stats")).json()

    assert stats["counts"] == {"pending": 2, "delivered": 3, "dead": 1, "cancelled": 5}
    assert (stats["success_rate"], stats["backlog"], stats["consecutive_failures"]) == (0.75, 2, 4)
    assert stats["oldest_due_at"] == "2025-10-27T05:01:00.000000Z"
    assert stats["circuit"] == {"state": "open", "until": "2025-10-27T07:01:00.000000Z"}
    assert stats["held_until"] == "2025-10-27T08:01:00.000000Z"
    assert (stats["attempts"], stats["failed_attempts"]) == (4, 1)
    assert stats["attempt_duration_ms"]["p50"] == pytest.approx(10, rel=0.05)

    api.pass_time(2 * HOUR)
    later = (await owner.get(f"/v1/subscriptions/{id_}/stats")).json()
    assert later["circuit"] == {"state": "probing", "until": None}
    assert later["held_until"] is None


async def test_of_a_subscription_that_a_key_does_not_see_it_sees_no_figures(api: Api, owner: httpx.AsyncClient) -> None:
    id_ = await made(owner)
    confined = await api.client(Scope.SUBSCRIPTIONS, libraries=["acme"])

    assert (await confined.get(f"/v1/subscriptions/{id_}/stats")).status_code == 404
    assert (await owner.get("/v1/subscriptions/sub_unknown/stats")).status_code == 404


@pytest.mark.parametrize("path", ["/v1/stats/deliveries", "/v1/subscriptions/sub_1/stats"])
async def test_figures_need_the_scope_of_subscriptions(api: Api, path: str) -> None:
    assert (await (await api.client(Scope.STREAM)).get(path)).status_code == 403
    assert (await (await api.client()).get(path)).status_code == 401
