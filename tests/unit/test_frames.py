"""What is written into frames comes out of an independent parser unchanged, and nothing else does."""

import json

import httpx
import pytest
from httpx_sse import EventSource
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.http.frames import MEDIA_TYPE, SseEncoding, data, frame
from gateway.http.messages import SocketEncoding
from tests.builders import an_event
from tests.whatwg import Dispatched, interpret

TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from("\r\n\0:\ufeff dataeventid"))
NAMED, UNNAMED = SseEncoding(named=True), SseEncoding(named=False)


def lines_joined(text: str) -> str:
    """What a reader gets for *text*: every line ending is the same to it."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


@given(TEXT)
@example("a\r\nb\rc\nd")
@example("\r")
@example("\n\n")
@example("")
@example("\ufeff leading and trailing ")
@example("id: 1\n\nevent: forged\ndata: x\n\n")
def test_data_comes_back_as_it_was_but_for_its_line_endings(text: str) -> None:
    source = interpret(frame(value=text.encode(), event="t", cursor="7"))
    assert source.events == [Dispatched("t", lines_joined(text), "7")]


@given(event=st.text(), cursor=st.text())
@example(event="x\ndata: forged\n\n", cursor="1\nretry: 0")
@example(event="x\rdata: forged", cursor="1\0")
@example(event="\ud800", cursor="\ud800")
def test_no_value_smuggles_a_field_in(event: str, cursor: str) -> None:
    source = interpret(frame(value=b"{}", event=event, cursor=cursor))
    assert len(source.events) == 1
    assert source.events[0].data == "{}"
    assert source.reconnection_ms is None
    assert source.comments == []


def test_a_megabyte_of_newlines_is_split_and_joined_again() -> None:
    text = "\n" * 2**20
    body = frame(value=text.encode())
    assert interpret(body).events == [Dispatched("message", text, "")]
    assert [got.data for got in by_httpx_sse(body)] == [text]


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none()))
def test_an_event_comes_back_whole(content: dict[str, str | int | None]) -> None:
    event = an_event(type="document.added", data=json.dumps(content).encode())
    [got] = interpret(NAMED.event(event, "k3v9-1")).events
    assert (got.type, got.last_event_id) == ("document.added", "k3v9-1")
    assert got.data.encode() == event.body


def by_httpx_sse(body: bytes) -> list[Dispatched]:
    """What httpx-sse makes of *body*; it shows frames without data too, which fire nothing in a browser."""
    response = httpx.Response(200, headers={"content-type": f"{MEDIA_TYPE}; charset=utf-8"}, content=body)
    return [Dispatched(got.event, got.data, got.id) for got in EventSource(response).iter_sse()]


@given(TEXT)
@example("a\r\nb\rc\nd")
@example("\r")
@example("\ufeff leading and trailing ")
@example("\x85\u2028\u2029\x0b\x0c\x1c\0")
@example("")
def test_httpx_sse_reads_the_same(text: str) -> None:
    body = SseEncoding().opening(3_000) + frame(value=text.encode(), event="t", cursor="7")
    assert by_httpx_sse(body)[-1] == Dispatched("t", lines_joined(text), "7")


@given(event=st.text(), cursor=st.text())
@example(event="x\ndata: forged\n\n", cursor="1\nretry: 0")
@example(event="\ud800", cursor="1\0")
def test_httpx_sse_is_smuggled_nothing(event: str, cursor: str) -> None:
    [got] = by_httpx_sse(frame(value=b"{}", event=event, cursor=cursor))
    assert got == interpret(frame(value=b"{}", event=event, cursor=cursor)).events[0] or event == ""


@given(st.dictionaries(st.text(st.characters() | st.sampled_from("\ud800\0\r\n\u2028")), st.integers()))
def test_a_message_of_a_socket_carries_the_same_event(content: dict[str, int]) -> None:
    event = an_event(data=json.dumps(content, ensure_ascii=not _is_writable(content)).encode())
    message = json.loads(SocketEncoding().event(event, "k3v9-1"))
    assert message.pop("data") == content
    same = {**json.loads(event.body), "type": "event", "event_type": event.type, "cursor": "k3v9-1"}
    del same["data"]
    assert message == same


def _is_writable(content: dict[str, int]) -> bool:
    return "".join(content).encode("utf-8", "replace").decode() == "".join(content)


def test_unnamed_events_fire_as_messages() -> None:
    assert interpret(UNNAMED.event(an_event(), "1")).events[0].type == "message"


def test_a_checkpoint_moves_the_cursor_and_fires_nothing() -> None:
    source = interpret(NAMED.checkpoint("k3v9-8"))
    assert (source.last_event_id, source.events) == ("k3v9-8", [])


def test_the_opening_sets_the_reconnection_time_and_fires_nothing() -> None:
    source = interpret(NAMED.opening(3_000))
    assert (source.reconnection_ms, source.events, len(source.comments)) == (3_000, [], 1)


@pytest.mark.parametrize("earliest", ["k3v9-5", None])
def test_a_gap_names_what_was_asked_for_and_what_there_is(earliest: str | None) -> None:
    source = interpret(NAMED.gap(cursor="k3v9-4", requested="\ud800\r\nid: 9", earliest=earliest))
    [gap] = source.events
    assert (gap.type, source.last_event_id) == ("gateway.gap", "k3v9-4")
    assert json.loads(gap.data) == {"requested": "\ud800\r\nid: 9", "earliest": earliest}


def test_expiry_leaves_the_cursor_alone() -> None:
    source = interpret(NAMED.checkpoint("k3v9-8") + NAMED.expired("revoked"))
    assert (source.events[0].type, source.last_event_id) == ("gateway.expired", "k3v9-8")


def test_heartbeat_and_farewell_fire_nothing() -> None:
    source = interpret(NAMED.heartbeat() + NAMED.farewell(7_312))
    assert (source.events, source.reconnection_ms) == ([], 7_312)


def test_data_without_line_ends_is_one_line() -> None:
    assert data(b'{"a":1}') == b'data: {"a":1}\n'
