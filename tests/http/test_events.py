"""Publishing, looking back and looking up."""

import json

import httpx
import pytest

from gateway.keys import Scope
from tests.http.conftest import STATISTICS, Api

DOCUMENT = {"type": "document.added", "library_id": "acme", "data": {"title": "T"}}


async def test_an_event_is_accepted_once_it_is_stored_and_found_again(api: Api, admin: httpx.AsyncClient) -> None:
    accepted = await admin.post("/v1/events", json=DOCUMENT)

    assert accepted.status_code == 202
    receipt = accepted.json()
    assert receipt.keys() == {"id", "cursor", "duplicate"}
    assert receipt["duplicate"] is False
    found = await admin.get(f"/v1/events/{receipt['id']}")
    assert found.status_code == 200
    assert found.json() == {
        "id": receipt["id"],
        **DOCUMENT,
        "timestamp": "2025-10-27T06:01:00.000000Z",
        "cursor": receipt["cursor"],
        "accepted_at": "2025-10-27T06:01:00.000000Z",
    }


async def test_the_same_event_again_is_a_duplicate_and_a_200(admin: httpx.AsyncClient) -> None:
    event = {**DOCUMENT, "id": "mine"}
    first = await admin.post("/v1/events", json=event)

    again = await admin.post("/v1/events", json=event)

    assert again.status_code == 200
    assert again.json() == {**first.json(), "duplicate": True}


async def test_a_known_id_with_other_content_is_a_conflict_that_names_the_place(admin: httpx.AsyncClient) -> None:
    await admin.post("/v1/events", json={**DOCUMENT, "id": "mine"})

    single = await admin.post("/v1/events", json={**DOCUMENT, "id": "mine", "data": {}})
    batch = await admin.post("/v1/events", json=[DOCUMENT, {**DOCUMENT, "id": "mine", "data": {}}])

    assert (single.status_code, batch.status_code) == (409, 409)
    assert single.json()["errors"][0]["pointer"] == "/id"
    assert batch.json()["errors"][0]["pointer"] == "/1/id"
    assert len((await admin.get("/v1/events")).json()["data"]) == 1


async def test_a_batch_is_answered_in_order_and_202_when_anything_is_new(admin: httpx.AsyncClient) -> None:
    first = await admin.post("/v1/events", json=[{**DOCUMENT, "id": "a"}, {**DOCUMENT, "id": "b"}])
    mixed = await admin.post("/v1/events", json=[{**DOCUMENT, "id": "b"}, {**DOCUMENT, "id": "c"}])
    known = await admin.post("/v1/events", json=[{**DOCUMENT, "id": "a"}])

    assert [each["id"] for each in first.json()["data"]] == ["a", "b"]
    assert mixed.status_code == 202
    assert [each["duplicate"] for each in mixed.json()["data"]] == [True, False]
    assert known.status_code == 200
    assert known.json()["data"][0]["duplicate"] is True


async def test_data_is_answered_as_it_was_written(admin: httpx.AsyncClient) -> None:
    data = '{"big":12345678901234567890123,"text":"\\ud83d\\ude00 \\u00e9","one":1.0}'
    body = '{"type":"custom","library_id":"a","data":' + data + "}"

    receipt = (await admin.post("/v1/events", content=body)).json()

    found = await admin.get(f"/v1/events/{receipt['id']}")
    assert f'"data":{data}' in found.text
    assert f'"data":{data}' in (await admin.get("/v1/events")).text


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        (b"", 400, None),
        (b"{", 400, None),
        (b'{"type":"\xff"}', 400, None),
        (b"\xef\xbb\xbf{}", 400, None),
        (b"3", 422, ""),
        (b"{}", 422, "/type"),
        (json.dumps({**DOCUMENT, "type": "gateway.x"}).encode(), 422, "/type"),
        (json.dumps([DOCUMENT, {**DOCUMENT, "library_id": ".."}]).encode(), 422, "/1/library_id"),
        (json.dumps({**DOCUMENT, "extra": 1}).encode(), 422, "/extra"),
        (b'{"type":"custom","library_id":"a","data":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, 422, "/data"),
    ],
)
async def test_what_is_no_event_is_refused_and_nothing_is_stored(
    admin: httpx.AsyncClient, body: bytes, status: int, pointer: str | None
) -> None:
    answer = await admin.post("/v1/events", content=body)

    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    if pointer is not None:
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert (await admin.get("/v1/events")).json()["data"] == []


async def test_an_event_or_a_body_that_is_too_large_is_a_413(admin: httpx.AsyncClient) -> None:
    large = await admin.post("/v1/events", json={**DOCUMENT, "data": {"x": "y" * 300_000}})
    huge = await admin.post("/v1/events", content=b" " * (10 * 2**20 + 1))

    for answer in (large, huge):
        assert answer.status_code == 413
        assert answer.json()["type"] == "/problems/too-large"


async def test_history_pages_through_everything_once_while_events_are_added(admin: httpx.AsyncClient) -> None:
    for number in range(5):
        await admin.post("/v1/events", json={**DOCUMENT, "id": f"e{number}"})
    seen: list[str] = []
    params: dict[str, str] = {"page_size": "2"}
    while True:
        page = (await admin.get("/v1/events", params=params)).json()
        seen += [event["id"] for event in page["data"]]
        await admin.post("/v1/events", json=DOCUMENT)
        if page["next_page_token"] is None:
            break
        params["page_token"] = page["next_page_token"]

    assert seen == ["e4", "e3", "e2", "e1", "e0"]


async def test_history_takes_the_filter_the_order_and_a_place_to_start_after(admin: httpx.AsyncClient) -> None:
    receipts = [
        (await admin.post("/v1/events", json={"type": kind, "library_id": library, "data": {"n": n}})).json()
        for n, (kind, library) in enumerate([("document.added", "a"), ("document.deleted", "b"), ("custom", "a")])
    ]

    async def numbers(**params: object) -> list[int]:
        answer = await admin.get("/v1/events", params=params)  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        return [event["data"]["n"] for event in answer.json()["data"]]

    assert await numbers(type=["document.*", "custom"], order="asc") == [0, 1, 2]
    assert await numbers(type="document.*") == [1, 0]
    assert await numbers(library_id="a") == [2, 0]
    assert await numbers(filter="event.data.n > 0", library_id="a") == [2]
    assert await numbers(after=receipts[0]["cursor"], order="asc") == [1, 2]
    assert await numbers(since="2025-10-27T08:01:00+02:00") == [2, 1, 0]
    assert await numbers(until="2025-10-27T06:01:00Z") == []


async def test_a_place_the_log_never_gave_out_is_a_410(admin: httpx.AsyncClient) -> None:
    for cursor in ("nonsense", "k3v9-99", "other-1"):
        answer = await admin.get("/v1/events", params={"after": cursor})
        assert answer.status_code == 410
        assert answer.json()["type"] == "/problems/cursor-gone"


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("page_size=0", "/page_size"),
        ("page_size=501", "/page_size"),
        ("page_size=ten", "/page_size"),
        ("page_size=1&page_size=2", "/page_size"),
        ("page_token=zzz", "/page_token"),
        ("since=yesterday", "/since"),
        ("until=2025-10-27", "/until"),
        ("order=up", "/order"),
        ("type=a&type=B", "/type/1"),
        ("library_id=..", "/library_id/0"),
        ("filter=event.data.(", "/filter"),
    ],
)
async def test_a_query_that_cannot_be_meant_is_a_422_that_names_the_parameter(
    admin: httpx.AsyncClient, query: str, pointer: str
) -> None:
    answer = await admin.get(f"/v1/events?{query}")

    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_a_page_token_of_another_question_or_list_is_refused(api: Api, admin: httpx.AsyncClient) -> None:
    for _ in range(3):
        await admin.post("/v1/events", json=DOCUMENT)
        await api.key(Scope.STREAM)
    events = (await admin.get("/v1/events?page_size=1")).json()["next_page_token"]
    keys = (await admin.get("/v1/keys?page_size=1")).json()["next_page_token"]

    for path in (
        f"/v1/events?type=custom&page_token={events}",
        f"/v1/events?page_token={keys}",
        f"/v1/keys?page_token={events}",
    ):
        answer = await admin.get(path)
        assert answer.status_code == 422, path
        assert answer.json()["errors"][0]["pointer"] == "/page_token"
    assert (await admin.get(f"/v1/events?page_size=2&page_token={events}")).status_code == 200


async def test_a_confined_publisher_is_told_which_events_lie_outside(api: Api, admin: httpx.AsyncClient) -> None:
    publisher = await api.client(Scope.PUBLISH, libraries=["acme"])
    foreign = {**DOCUMENT, "library_id": "other"}

    single = await publisher.post("/v1/events", json=foreign)
    batch = await publisher.post("/v1/events", json=[DOCUMENT, foreign])

    assert (single.status_code, batch.status_code) == (403, 403)
    assert single.json()["errors"][0]["pointer"] == "/library_id"
    assert [fault["pointer"] for fault in batch.json()["errors"]] == ["/1/library_id"]
    assert (await publisher.post("/v1/events", json=DOCUMENT)).status_code == 202
    assert len((await admin.get("/v1/events")).json()["data"]) == 1


async def test_a_confined_reader_sees_nothing_of_other_libraries(api: Api, admin: httpx.AsyncClient) -> None:
    mine = (await admin.post("/v1/events", json=DOCUMENT)).json()["id"]
    foreign = (await admin.post("/v1/events", json={**DOCUMENT, "library_id": "other"})).json()["id"]
    reader = await api.client(Scope.STREAM, libraries=["acme"])

    assert [event["id"] for event in (await reader.get("/v1/events")).json()["data"]] == [mine]
    assert (await reader.get("/v1/events?library_id=other")).json()["data"] == []
    assert (await reader.get(f"/v1/events/{foreign}")).status_code == 404
    assert (await reader.get(f"/v1/events/{mine}")).status_code == 200
    assert (await reader.get("/v1/events/stats")).status_code == 403


async def test_statistics_are_those_of_the_process(admin: httpx.AsyncClient) -> None:
    answer = await admin.get("/v1/events/stats")

    assert answer.status_code == 200
    assert answer.json() == STATISTICS


@pytest.mark.parametrize("event_id", ["nothing", "evt_01jb3h5qk8e9vbr1q4z8e9vbr1", "%00", "%ff", "a.b"])
async def test_an_unknown_event_is_a_404(admin: httpx.AsyncClient, event_id: str) -> None:
    answer = await admin.get(f"/v1/events/{event_id}")

    assert answer.status_code == 404
    assert answer.json()["type"] == "/problems/not-found"
