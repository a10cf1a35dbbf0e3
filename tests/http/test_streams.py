"""Server-Sent Events as API.md promises them, over a real connection."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from gateway.events import Cursor
from gateway.keys import Scope
from gateway.times import to_rfc3339
from tests.builders import a_draft
from tests.http.served import ORIGIN, PATH, Connection, Served, serving
from tests.until import until
from tests.whatwg import Source


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served()
    async with serving(served):
        yield served


def at(cursor: int) -> str:
    return f"k3v9-{cursor}"


def started(source: Source) -> bool:
    return source.last_event_id != ""


async def gone_by(served: Served, reader: Connection, cursor: int) -> Source:
    """What the reader has once everything up to *cursor* has gone by it."""
    served.beat()
    return await reader.until(lambda source: source.last_event_id == at(cursor))


async def problem(reader: Connection) -> dict[str, Any]:
    await reader.rest()
    answer: dict[str, Any] = json.loads(reader.body)
    return answer


# --- the beginning ---------------------------------------------------------------------------------------------------


async def test_a_live_stream_opens_at_once_with_retry_a_comment_and_the_head(served: Served) -> None:
    await served.publish_numbers(1, 3)
    async with served.reading() as reader:
        source = await reader.until(started)
        assert source.reconnection_ms == 3_000
        assert len(source.comments) == 1
        assert source.last_event_id == at(3)
        assert source.events == []


async def test_the_headers_are_those_of_the_contract(served: Served) -> None:
    async with served.reading() as reader:
        assert reader.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reader.headers["cache-control"] == "no-store"
        assert reader.headers["x-accel-buffering"] == "no"
        assert reader.headers["vary"] == "Origin"
        assert "content-encoding" not in reader.headers


async def test_a_page_of_an_allowed_origin_may_read(served: Served) -> None:
    async with served.reading(headers={"origin": ORIGIN}) as reader:
        assert reader.headers["access-control-allow-origin"] == ORIGIN
        assert reader.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in reader.headers
        await reader.until(started)


async def test_a_page_of_another_origin_may_not(served: Served) -> None:
    async with served.reading(headers={"origin": "https://evil.example"}) as reader:
        assert "access-control-allow-origin" not in reader.headers


async def test_a_preflight_allows_last_event_id(served: Served) -> None:
    asks = {
        "origin": ORIGIN,
        "access-control-request-method": "GET",
        "access-control-request-headers": "last-event-id, authorization",
    }
    async with Connection(served.port, PATH, method="OPTIONS", headers=asks) as reader:
        await reader.head()
        assert reader.status == 204
        assert "last-event-id" in reader.headers["access-control-allow-headers"]


# --- who may ---------------------------------------------------------------------------------------------------------


async def test_without_a_key_there_is_no_stream(served: Served) -> None:
    async with Connection(served.port, PATH) as reader:
        await reader.head()
        assert reader.status == 401


async def test_the_scope_is_needed(served: Served) -> None:
    async with served.reading(secret=await served.key(Scope.PUBLISH)) as reader:
        assert reader.status == 403


async def test_a_token_in_the_url_is_good_for_a_stream_but_a_key_is_not(served: Served) -> None:
    secret = await served.key()
    token, _ = await served.tokens.issue(key_id="key_0", libraries=None, types=None, lifetime=timedelta(hours=1))
    async with served.reading(f"{PATH}?token={token}") as reader, served.reading(f"{PATH}?token={secret}") as refused:
        assert (reader.status, refused.status) == (200, 401)


async def test_a_confined_key_sees_its_libraries_alone_whatever_it_asks_for(served: Served) -> None:
    secret = await served.key(libraries=["mine"])
    paths = [
        PATH,
        f"{PATH}?library_id=mine&library_id=other",
        f"{PATH}?library_id=other",
        f"{PATH}?since=2000-01-01T00:00:00Z",
    ]
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(served.reading(path, secret=secret)) for path in paths]
        await served.publish_numbers(1, 1, library_id="other")
        await served.publish_numbers(2, 2, library_id="mine")
        await served.publish_numbers(3, 3, library_id="other")
        for reader in readers:
            await gone_by(served, reader, 3)
        assert [reader.numbers for reader in readers] == [[2], [2], [], [2]]


async def test_a_library_outside_is_not_there(served: Served) -> None:
    secret = await served.key(libraries=["mine"])
    async with served.reading("/v1/libraries/other/events/stream", secret=secret) as reader:
        assert reader.status == 404
        assert (await problem(reader))["type"] == "/problems/not-found"
    async with served.reading("/v1/libraries/mine/events/stream", secret=secret) as reader:
        assert reader.status == 200


async def test_a_token_narrows_the_types(served: Served) -> None:
    await served.key()
    token, _ = await served.tokens.issue(
        key_id="key_0", libraries=None, types=frozenset({"document.*"}), lifetime=timedelta(hours=1)
    )
    async with (
        served.reading(f"{PATH}?token={token}") as everything,
        served.reading(f"{PATH}?token={token}&type=document.added&type=search.performed") as some,
        served.reading(f"{PATH}?token={token}&type=search.performed") as nothing,
    ):
        await served.publish_numbers(1, 1, type_="document.deleted")
        await served.publish_numbers(2, 2, type_="document.added")
        await served.publish_numbers(3, 3, type_="search.performed")
        for reader in (everything, some, nothing):
            await gone_by(served, reader, 3)
        assert (everything.numbers, some.numbers, nothing.numbers) == ([1, 2], [2], [])


async def test_the_gateways_own_events_go_to_who_names_them_and_may_see_them(served: Served) -> None:
    confined = await served.key(libraries=["mine"])
    async with (
        served.reading() as unaware,
        served.reading(f"{PATH}?type=gateway.*") as aware,
        served.reading(f"{PATH}?type=gateway.*", secret=confined) as insider,
    ):
        for audience in (None, frozenset({"mine"}), frozenset({"mine", "other"})):
            await served.log.append([[a_draft(type="gateway.ping", library_id="gateway", audience=audience)]])
        await until(lambda: served.streams.hub.cursor == 3)
        for reader in (unaware, aware, insider):
            await gone_by(served, reader, 3)
        assert [len(reader.source.events) for reader in (unaware, aware, insider)] == [0, 3, 1]


# --- what it carries -------------------------------------------------------------------------------------------------


async def test_frames_carry_cursor_type_and_the_event_as_it_was_written(served: Served) -> None:
    async with served.reading() as reader:
        await served.log.append([[a_draft(id="one", data=b'{"n":1.0,"s":"\\u00e9\\n"}')]])
        await reader.until_events(1)
        [event] = reader.source.events
        assert (event.type, event.last_event_id) == ("document.added", at(1))
        noon = to_rfc3339(served.clock.moment)
        assert event.data == (
            f'{{"id":"one","type":"document.added","library_id":"books","timestamp":"{noon}",'
            '"data":{"n":1.0,"s":"\\u00e9\\n"}}'
        )


async def test_unnamed_frames_reach_onmessage(served: Served) -> None:
    async with served.reading(f"{PATH}?named=false") as reader:
        await served.publish_numbers(1, 1)
        await reader.until_events(1)
        assert reader.source.events[0].type == "message"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("type=document.added", [1]),
        ("type=document.*&type=search.performed", [1, 2, 3]),
        ("type=*", [1, 2, 3, 4]),
        ("library_id=books&library_id=films", [1, 2, 3, 4]),
        ("library_id=films", [4]),
        ("filter=event.data.n%20%3E%202", [3, 4]),
        ("filter=event.data.absent%20%3D%3D%201", []),
        ("type=document.*&library_id=books&filter=event.data.n%20%3C%202", [1]),
    ],
)
async def test_a_filter_chooses(served: Served, query: str, expected: list[int]) -> None:
    async with served.reading(f"{PATH}?{query}") as live:
        for number, type_ in enumerate(["document.added", "document.page.added", "search.performed"], 1):
            await served.publish_numbers(number, number, type_=type_)
        await served.publish_numbers(4, 4, type_="custom", library_id="films")
        await gone_by(served, live, 4)
        assert live.numbers == expected
    async with served.reading(f"{PATH}?{query}", headers={"last-event-id": at(0)}) as back:
        await gone_by(served, back, 4)
        assert back.numbers == expected


async def test_a_stream_of_one_library_carries_that_library(served: Served) -> None:
    async with served.reading("/v1/libraries/films/events/stream") as reader:
        await served.publish_numbers(1, 1)
        await served.publish_numbers(2, 2, library_id="films")
        await reader.until_events(1)
        assert reader.numbers == [2]


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("type=Bad", "/type/0"),
        ("type=a&type=b..c", "/type/1"),
        ("library_id=...", "/library_id/0"),
        ("filter=event.", "/filter"),
        ("filter=1%20%2B%201&filter=true", "/filter"),
        ("since=yesterday", "/since"),
        ("named=maybe", "/named"),
    ],
)
async def test_a_bad_parameter_is_named(served: Served, query: str, place: str) -> None:
    async with served.reading(f"{PATH}?{query}") as reader:
        assert reader.status == 422
        assert [error["pointer"] for error in (await problem(reader))["errors"]] == [place]
        assert len(served.streams) == 0


# --- coming back -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", ["ring and log", "log alone"])
async def test_history_comes_first_and_live_follows_without_a_seam(served: Served, kept: str) -> None:
    if kept == "log alone":
        served.streams.hub._ring_bytes = 1  # a ring of one page, as after long absence
    await served.publish_numbers(1, 2_000)
    async with served.reading(headers={"last-event-id": at(5)}) as reader:
        await served.publish_numbers(2_001, 2_003)
        await reader.until_events(1_998)
        assert reader.numbers == list(range(6, 2_004))


async def test_the_header_wins_over_the_query_and_a_cursor_over_a_time(served: Served) -> None:
    await served.publish_numbers(1, 5)
    since = to_rfc3339(served.clock.moment)
    async with (
        served.reading(f"{PATH}?last_event_id={at(1)}", headers={"last-event-id": at(3)}) as header,
        served.reading(f"{PATH}?last_event_id={at(4)}&since={since}") as query,
        served.reading(f"{PATH}?last_event_id=&since={since}", headers={"last-event-id": ""}) as time,
    ):
        for reader, expected in ((header, [4, 5]), (query, [5]), (time, [1, 2, 3, 4, 5])):
            await reader.until_events(len(expected))
            assert reader.numbers == expected


async def test_since_includes_its_moment(served: Served) -> None:
    await served.publish_numbers(1, 1)
    served.clock.advance(seconds=10)
    moment = to_rfc3339(served.clock.moment)
    await served.publish_numbers(2, 2)
    async with served.reading(f"{PATH}?since={moment}") as reader:
        await reader.until_events(1)
        assert reader.numbers == [2]


@pytest.mark.parametrize("requested", ["k3v9-9", "k3v9-2", "other-8", "nonsense", "k3v9-", "k3v9--1", "x" * 100])
async def test_a_place_that_the_log_does_not_hold_is_told_as_a_gap(served: Served, requested: str) -> None:
    await served.publish_numbers(1, 8)
    served.streams.hub._ring.clear()  # as in a process that has just started
    served.log.drop(Cursor(5))
    async with served.reading(headers={"last-event-id": requested}) as reader:
        source = await reader.until(lambda source: len(source.events) == 4)
        gap = source.events[0]
        assert (gap.type, gap.last_event_id) == ("gateway.gap", at(5))
        assert json.loads(gap.data) == {"requested": requested[:64], "earliest": at(6)}
        assert [event.last_event_id for event in source.events[1:]] == [at(6), at(7), at(8)]


async def test_a_place_just_before_the_earliest_is_no_gap(served: Served) -> None:
    await served.publish_numbers(1, 8)
    served.streams.hub._ring.clear()  # as in a process that has just started
    served.log.drop(Cursor(5))
    async with served.reading(headers={"last-event-id": at(5)}) as reader:
        await reader.until_events(3)
        assert [event.type for event in reader.source.events] == ["document.added"] * 3


async def test_the_gap_of_an_empty_log_has_no_earliest(served: Served) -> None:
    async with served.reading(headers={"last-event-id": "gone-5"}) as reader:
        await served.publish_numbers(1, 1)
        source = await reader.until(lambda source: len(source.events) == 2)
        assert json.loads(source.events[0].data) == {"requested": "gone-5", "earliest": None}
        assert [event.last_event_id for event in source.events] == [at(0), at(1)]


async def test_a_time_older_than_what_was_dropped_is_a_gap(served: Served) -> None:
    before = to_rfc3339(served.clock.moment)
    await served.publish_numbers(1, 4)
    served.clock.advance(seconds=1)
    after = to_rfc3339(served.clock.moment)
    await served.publish_numbers(5, 8)
    served.log.drop(Cursor(4))
    async with served.reading(f"{PATH}?since={before}") as lost, served.reading(f"{PATH}?since={after}") as whole:
        source = await lost.until(lambda source: len(source.events) == 5)
        assert json.loads(source.events[0].data) == {"requested": before, "earliest": at(5)}
        await whole.until_events(4)
        assert whole.source.events[0].type == "document.added"


async def test_a_gap_for_onmessage_is_unnamed_too(served: Served) -> None:
    async with served.reading(f"{PATH}?named=false", headers={"last-event-id": "gone-5"}) as reader:
        source = await reader.until(lambda source: len(source.events) == 1)
        assert source.events[0].type == "message"


# --- while it lasts --------------------------------------------------------------------------------------------------


async def test_a_heartbeat_is_a_comment_or_moves_the_cursor_when_events_have_passed_by(served: Served) -> None:
    async with served.reading(f"{PATH}?type=custom") as reader:
        await reader.until(started)
        served.beat()
        source = await reader.until(lambda source: len(source.comments) == 2)
        await served.publish_numbers(1, 3)
        served.beat()
        source = await reader.until(lambda source: source.last_event_id == at(3))
        assert (source.events, len(source.comments)) == ([], 2)
        served.beat()
        await reader.until(lambda source: len(source.comments) == 3)


async def test_the_wheel_of_heartbeats_comes_round(served: Served) -> None:
    async with served.reading() as reader:
        for _ in range(len(served.streams._wheel)):  # once round
            served.streams.tick()
        await reader.until(lambda source: len(source.comments) == 2)


async def test_a_stream_ends_with_its_token(served: Served) -> None:
    await served.key()
    token, expires_at = await served.tokens.issue(
        key_id="key_0", libraries=None, types=None, lifetime=timedelta(seconds=60)
    )
    async with served.reading(f"{PATH}?token={token}") as reader, served.reading() as other:
        served.clock.moment = expires_at - timedelta(microseconds=1)
        served.streams.tick()
        assert len(served.streams) == 2
        served.clock.moment = expires_at
        served.streams.tick()
        source = await reader.rest()
        assert reader.ended
        assert [event.type for event in source.events] == ["gateway.expired"]
        assert source.last_event_id == at(0)
        await served.publish_numbers(1, 1)
        await other.until_events(1)


async def test_a_stream_ends_when_its_key_is_revoked_in_whatever_process(served: Served) -> None:
    async with served.reading() as reader, served.reading():
        [key_id, _] = served.keys.kept
        await served.publish(json.dumps({"key_id": key_id}).encode(), library_id="gateway", type_="gateway.key.revoked")
        source = await reader.rest()
        assert [event.type for event in source.events] == ["gateway.expired"]
        assert len(served.streams) == 1
        # And while the key is still in some cache, it opens nothing new.
        async with Connection(served.port, PATH, secret="secret-0") as again:
            await again.head()
            assert again.status == 401


async def test_over_capacity_a_browser_is_told_to_come_back_and_a_program_that_it_cannot_be_served() -> None:
    served = Served(max_streams=1)
    async with serving(served), served.reading():
        retries = set()
        for _ in range(20):
            async with served.reading() as browser:
                assert browser.status == 200
                assert browser.headers["content-type"] == "text/event-stream; charset=utf-8"
                source = await browser.rest()
                assert source.events == []
                retries.add(source.reconnection_ms)
        assert len(retries) > 10
        async with served.reading(accept="*/*") as program:
            assert program.status == 503
            assert int(program.headers["retry-after"]) > 0
            assert (await problem(program))["type"] == "/problems/overloaded"
        assert len(served.streams) == 1


async def test_room_is_made_by_who_leaves() -> None:
    served = Served(max_streams=1)
    async with serving(served):
        async with served.reading():
            pass
        await until(lambda: len(served.streams) == 0)
        async with served.reading(accept="*/*") as reader:
            assert reader.status == 200


# --- who listens -----------------------------------------------------------------------------------------------------


async def test_admins_see_who_listens_and_can_end_a_stream(served: Served) -> None:
    admin = await served.key(Scope.ADMIN)
    async with served.reading(f"{PATH}?type=custom&library_id=films&filter=true") as reader:
        await served.publish_numbers(1, 2)
        async with served.reading("/v1/streams", secret=admin) as listing:
            [row] = (await problem(listing))["data"]
        assert row["types"] == ["custom"]
        assert row["library_ids"] == ["films"]
        assert row["filter"] == "true"
        assert (row["lag"], row["cursor"], row["key_id"]) == (0, at(2), "key_1")
        assert row["opened_at"] == to_rfc3339(served.clock.moment)
        assert row["address"].startswith("127.0.0.1:")
        assert row["bytes"] > 0
        async with served.reading(f"/v1/streams/{row['id']}", secret=admin, method="DELETE") as deleting:
            assert deleting.status == 204
        await reader.rest()
        assert reader.ended
        async with served.reading(f"/v1/streams/{row['id']}", secret=admin, method="DELETE") as again:
            assert again.status == 404


async def test_the_list_of_streams_comes_in_pages_newest_first(served: Served) -> None:
    admin = await served.key(Scope.ADMIN)
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(served.reading())
        found: list[str] = []
        token: str | None = ""
        while token is not None:
            path = "/v1/streams?page_size=2" + (f"&page_token={token}" if token else "")
            async with served.reading(path, secret=admin) as listing:
                page = await problem(listing)
            found += [row["id"] for row in page["data"]]
            token = page["next_page_token"]
        assert found == sorted((stream.id for stream in served.streams.all()), reverse=True)


async def test_only_admins_see_who_listens(served: Served) -> None:
    async with served.reading("/v1/streams") as listing:
        assert listing.status == 403
