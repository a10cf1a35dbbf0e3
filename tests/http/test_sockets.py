"""WebSockets as API.md promises them, over a real connection."""

import json
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import unquote

import pytest
from websockets.typing import Origin

from gateway.events import Cursor
from gateway.keys import Scope
from gateway.times import to_rfc3339
from tests.builders import a_draft
from tests.http.served import PATH as SSE
from tests.http.served import Connection, Served, serving
from tests.http.sockets import PATH, SocketReader, listening, opened, refused
from tests.until import until


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served()
    async with serving(served):
        yield served


def at(cursor: int) -> str:
    return f"k3v9-{cursor}"


async def gone_by(served: Served, reader: SocketReader, cursor: int) -> None:
    """Read on until everything up to *cursor* has gone by *reader*."""
    if not reader.messages or reader.messages[-1]["cursor"] != at(cursor):
        served.beat()
        await reader.until_cursor(at(cursor))


# --- what it carries -------------------------------------------------------------------------------------------------


async def test_a_live_socket_begins_with_a_checkpoint_of_the_head(served: Served) -> None:
    await served.publish_numbers(1, 3)
    async with listening(served) as reader:
        assert await reader.read() == {"type": "checkpoint", "cursor": at(3)}


async def test_a_message_carries_the_event_with_its_data_as_it_was_written(served: Served) -> None:
    async with listening(served) as reader:
        await reader.read()
        await served.log.append([[a_draft(id="one", data=b'{"n":1.0,"s":"\\u00e9\\n\xe2\x82\xac"}')]])
        await reader.read()
        noon = to_rfc3339(served.clock.moment)
        assert reader.texts[1] == (
            '{"type":"event","event_type":"document.added","id":"one","cursor":"k3v9-1","library_id":"books",'
            f'"timestamp":"{noon}","data":{{"n":1.0,"s":"\\u00e9\\n€"}}}}'
        )


@pytest.mark.parametrize("size", [0, 1, 200, 65_000, 70_000, 250_000])
async def test_messages_of_any_length_arrive_whole(served: Served, size: int) -> None:
    async with listening(served) as reader:
        await reader.read()
        await served.publish(b'{"n":1,"x":"%b"}' % (b"x" * size), b'{"n":2}')
        await reader.until_events(2)
        assert (reader.numbers, len(reader.messages[1]["data"]["x"])) == ([1, 2], size)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("type=document.added", [1]),
        ("type=document.*&type=search.performed", [1, 2, 3]),
        ("library_id=books&library_id=films", [1, 2, 3, 4]),
        ("library_id=films", [4]),
        ("filter=event.data.n%20%3E%202", [3, 4]),
        ("type=document.*&library_id=books&filter=event.data.n%20%3C%202", [1]),
    ],
)
async def test_a_filter_chooses(served: Served, query: str, expected: list[int]) -> None:
    async with listening(served, f"{PATH}?{query}") as live:
        for number, type_ in enumerate(["document.added", "document.page.added", "search.performed"], 1):
            await served.publish_numbers(number, number, type_=type_)
        await served.publish_numbers(4, 4, type_="custom", library_id="films")
        await gone_by(served, live, 0)
        await gone_by(served, live, 4)
        assert live.numbers == expected
    async with listening(served, f"{PATH}?{query}&after={at(0)}") as back:
        await gone_by(served, back, 4)
        assert back.numbers == expected
        assert back.messages[0]["type"] == "event", "it does not start live: no checkpoint before its past"


async def test_a_socket_of_one_library_carries_that_library(served: Served) -> None:
    async with listening(served, "/v1/libraries/films/ws") as reader:
        await served.publish_numbers(1, 1)
        await served.publish_numbers(2, 2, library_id="films")
        await reader.until_events(1)
        assert reader.numbers == [2]


async def test_a_heartbeat_moves_the_cursor_when_events_have_passed_by(served: Served) -> None:
    async with listening(served, f"{PATH}?type=custom") as reader:
        await reader.read()
        await served.publish_numbers(1, 1)
        served.beat()
        served.beat()  # nothing has passed since: a checkpoint says nothing new, and is not said
        await served.publish_numbers(2, 2, type_="custom")
        await reader.until_events(1)
        assert [(message["type"], message["cursor"]) for message in reader.messages] == [
            ("checkpoint", at(0)),
            ("checkpoint", at(1)),
            ("event", at(2)),
        ]


async def test_the_extension_that_compresses_is_not_agreed_on(served: Served) -> None:
    async with listening(served, compression="deflate") as reader:
        assert reader.connection.protocol.extensions == []


# --- coming back -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", ["ring and log", "log alone"])
async def test_history_comes_first_and_live_follows_without_a_seam(served: Served, kept: str) -> None:
    if kept == "log alone":
        served.streams.hub._ring_bytes = 1  # a ring of one page, as after long absence
    await served.publish_numbers(1, 2_000)
    async with listening(served, f"{PATH}?after={at(5)}") as reader:
        await served.publish_numbers(2_001, 2_003)
        await reader.until_events(1_998)
        assert reader.numbers == list(range(6, 2_004))


async def test_a_cursor_wins_over_a_time_and_an_empty_one_is_none(served: Served) -> None:
    await served.publish_numbers(1, 5)
    since = to_rfc3339(served.clock.moment)
    async with (
        listening(served, f"{PATH}?after={at(3)}&since={since}") as cursor,
        listening(served, f"{PATH}?after=&since={since}") as time,
    ):
        await cursor.until_events(2)
        await time.until_events(5)
        assert (cursor.numbers, time.numbers) == ([4, 5], [1, 2, 3, 4, 5])


@pytest.mark.parametrize("requested", ["k3v9-9", "k3v9-2", "other-8", "nonsense", "%22%0D%0A", "x" * 100])
async def test_a_place_that_the_log_does_not_hold_is_told_as_a_gap(served: Served, requested: str) -> None:
    await served.publish_numbers(1, 8)
    served.streams.hub._ring.clear()  # as in a process that has just started
    served.log.drop(Cursor(5))
    async with listening(served, f"{PATH}?after={requested}") as reader:
        await reader.until_events(3)
        said = unquote(requested)[:64]
        assert reader.messages[0] == {"type": "gap", "requested": said, "earliest": at(6), "cursor": at(5)}
        assert reader.places == [at(6), at(7), at(8)]


async def test_a_time_older_than_what_was_dropped_is_a_gap(served: Served) -> None:
    before = to_rfc3339(served.clock.moment)
    await served.publish_numbers(1, 4)
    served.clock.advance(seconds=1)
    await served.publish_numbers(5, 8)
    served.log.drop(Cursor(4))
    async with listening(served, f"{PATH}?since={before}") as reader:
        gap = await reader.read()
        assert gap == {"type": "gap", "requested": before, "earliest": at(5), "cursor": at(4)}


# --- who may ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "credentials", "status", "name"),
    [
        (PATH, "none", 401, "unauthenticated"),
        (PATH, "wrong", 401, "unauthenticated"),
        (f"{PATH}?token=nonsense", "none", 401, "unauthenticated"),
        (f"{PATH}?token=secret-0", "none", 401, "unauthenticated"),  # a key is never accepted in a URL
        (PATH, "publish", 403, "forbidden"),
        ("/v1/libraries/other/ws", "mine", 404, "not-found"),
        ("/v1/libraries/.../ws", "mine", 404, "not-found"),
        (f"{PATH}?type=Bad", "mine", 422, "invalid"),
        (f"{PATH}?since=yesterday", "mine", 422, "invalid"),
        (f"{PATH}?filter=event.", "mine", 422, "invalid"),
    ],
)
async def test_what_is_refused_is_refused_before_the_handshake_as_a_problem(
    served: Served, path: str, credentials: str, status: int, name: str
) -> None:
    secrets = {
        "none": None,
        "wrong": "wrong",
        "mine": await served.key(libraries=["mine"]),
        "publish": await served.key(Scope.PUBLISH),
    }
    response = await refused(served, path, secret=secrets[credentials])
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert json.loads(response.body)["type"] == f"/problems/{name}"
    assert (response.headers.get("www-authenticate") == "Bearer") == (status == 401)
    assert len(served.streams) == 0


async def test_a_token_is_enough_for_a_page_of_any_origin(served: Served) -> None:
    await served.key()
    token, _ = await served.tokens.issue(
        key_id="key_0", libraries=None, types=frozenset({"document.*"}), lifetime=timedelta(hours=1)
    )
    async with listening(served, f"{PATH}?token={token}", origin=Origin("https://elsewhere.example")) as reader:
        await reader.read()
        await served.publish_numbers(1, 1, type_="search.performed")
        await served.publish_numbers(2, 2)
        await reader.until_events(1)
        assert reader.numbers == [2]


async def test_no_token_is_logged(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await served.key()
    token, _ = await served.tokens.issue(key_id="key_0", libraries=None, types=None, lifetime=timedelta(hours=1))
    async with opened(served.port, f"{PATH}?token={token}", logger=logging.getLogger("silent")) as reader:
        await reader.read()
    await refused(served, f"{PATH}?token={token}x", logger=logging.getLogger("silent"))
    await until(lambda: len(served.streams) == 0)
    said = [record.getMessage() for record in caplog.records if record.name != "silent"]
    assert [line for line in said if token in line] == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == [], "nothing has gone wrong"


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_a_socket_ends_with_its_token(served: Served) -> None:
    await served.key()
    token, expires_at = await served.tokens.issue(
        key_id="key_0", libraries=None, types=None, lifetime=timedelta(seconds=60)
    )
    async with listening(served, f"{PATH}?token={token}") as reader, listening(served) as other:
        served.clock.moment = expires_at
        served.streams.tick()
        assert await reader.code() == 4401
        await served.publish_numbers(1, 1)
        await other.until_events(1)


async def test_a_socket_ends_when_its_key_is_revoked(served: Served) -> None:
    async with listening(served) as reader, listening(served):
        [key_id, _] = served.keys.kept
        await served.publish(json.dumps({"key_id": key_id}).encode(), library_id="gateway", type_="gateway.key.revoked")
        assert await reader.code() == 4401
        assert len(served.streams) == 1
    assert (await refused(served, secret="secret-0")).status_code == 401


async def test_over_capacity_a_socket_is_closed_with_a_code_that_a_browser_can_see() -> None:
    served = Served(max_streams=2)
    async with serving(served), served.reading(), listening(served) as reader:
        await reader.read()
        async with listening(served) as third:
            assert await third.code() == 1013
            assert third.messages == []
        assert len(served.streams) == 2
        async with served.reading(SSE, accept="*/*") as program:
            assert program.status == 503, "sockets and streams have one limit"


async def test_room_is_made_by_who_leaves() -> None:
    served = Served(max_streams=1)
    async with serving(served):
        async with listening(served) as reader:
            await reader.read()
        await until(lambda: len(served.streams) == 0)
        async with listening(served) as reader:
            assert (await reader.read())["type"] == "checkpoint"


async def test_a_gateway_that_is_stopping_takes_no_more(served: Served) -> None:
    await served.streams.drain()
    async with listening(served) as reader:
        assert await reader.code() == 1013


async def test_admins_see_sockets_among_the_streams_and_can_end_them(served: Served) -> None:
    admin = await served.key(Scope.ADMIN)
    async with listening(served, f"{PATH}?type=custom&library_id=films&filter=true") as reader, served.reading():
        await reader.read()
        async with served.reading("/v1/streams", secret=admin) as listing:
            await listing.rest()
        streams = {row["transport"]: row for row in json.loads(listing.body)["data"]}
        assert streams.keys() == {"sse", "websocket"}
        row = streams["websocket"]
        assert (row["types"], row["library_ids"], row["filter"]) == (["custom"], ["films"], "true")
        assert row["address"].startswith("127.0.0.1:")
        assert row["bytes"] > 0
        async with served.reading(f"/v1/streams/{row['id']}", secret=admin, method="DELETE") as deleting:
            assert deleting.status == 204
        assert await reader.code() == 1000
        assert len(served.streams) == 1


async def test_a_request_that_is_no_handshake_is_answered(served: Served) -> None:
    async with Connection(served.port, PATH, secret=await served.key()) as plain:
        await plain.head()
        assert (plain.status, plain.headers["allow"]) == (405, "")
        await plain.rest()
        assert json.loads(plain.body)["detail"] == "this path is for WebSockets alone"
