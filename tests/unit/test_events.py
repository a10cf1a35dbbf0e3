"""Events as values, and cursors as clients see them."""

import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events import Cursor, Event, EventType, Page, Position
from tests.builders import NOON, a_page, an_event

HERE = Position(epoch="k3v9", head=Cursor(100), earliest=Cursor(40))


def test_a_type_is_its_name() -> None:
    assert EventType.DOCUMENT_ADDED == "document.added"
    assert EventType.DOCUMENT_ADDED.value == "document.added"
    assert f"{EventType.DOCUMENT_ADDED}" == "document.added"
    assert {"anything.else": 1}[EventType("anything.else")] == 1
    assert type(EventType.CUSTOM.value) is str


def test_an_event_takes_what_programs_have_at_hand() -> None:
    naive = NOON.replace(tzinfo=None)
    event = Event(type="custom", library_id=UUID(int=5), timestamp=naive)
    assert isinstance(event.type, EventType)
    assert event.library_id == "00000000-0000-0000-0000-000000000005"
    assert (event.timestamp, event.data, event.id) == (NOON, {}, None)


def test_an_event_does_not_change() -> None:
    event = Event(type="custom", library_id="l")
    with pytest.raises(AttributeError):
        event.type = EventType("other")  # type: ignore[misc]  # that it cannot be done is the point


def test_the_body_is_the_events_json_with_its_data_untouched() -> None:
    data = rb'{"n":1.00,"big":12345678901234567890123,"s":"\u00e9\ud800"}'
    event = an_event(id="evt_1", type="a.b", library_id="L.1:x", data=data)
    assert event.body == (
        b'{"id":"evt_1","type":"a.b","library_id":"L.1:x","timestamp":"2025-10-27T12:00:00.000000Z","data":'
        + data
        + b"}"
    )
    assert list(json.loads(event.body)) == ["id", "type", "library_id", "timestamp", "data"]
    assert event.body is event.body


def test_which_events_are_the_gateways_own() -> None:
    assert an_event(type="gateway.ping").is_gateways_own
    assert not an_event(type="gateways.ping").is_gateways_own


def test_a_page_ends_with_its_last_event() -> None:
    assert a_page([an_event(cursor=5), an_event(cursor=6)]).last == 6
    assert Page(after=Cursor(4), events=()).last == 4


@pytest.mark.parametrize("cursor", [39, 40, 100])
def test_a_cursor_that_the_log_holds_is_read_again(cursor: int) -> None:
    assert HERE.read(HERE.write(Cursor(cursor))) == cursor


@pytest.mark.parametrize(
    "text", ["k3v9-38", "k3v9-101", "other-50", "k3v9-", "k3v9", "50", "", "-50", "k3v9--50", "k3v9-+50"]
)
def test_a_cursor_that_it_does_not_hold_is_none(text: str) -> None:
    assert HERE.read(text) is None


@pytest.mark.parametrize(
    "text", ["k3v9-٥٠", "k3v9-5 0", "k3v9- 50", "k3v9-50\n", "k3v9-5_0", "k3v9-" + "9" * 5000, "k3v9-²"]
)
def test_nor_is_what_only_looks_like_one(text: str) -> None:
    assert HERE.read(text) is None


@given(cursor=st.integers(0, 10**18 - 1))
def test_a_written_cursor_is_safe_in_a_header(cursor: int) -> None:
    """Others would make a browser ask for permission before it reconnects."""
    where = Position(epoch="0f" * 8, head=Cursor(10**18), earliest=Cursor(1))
    text = where.write(Cursor(cursor))
    assert len(text) <= 64
    assert text.replace("-", "").isalnum()
    assert where.read(text) == cursor


@given(text=st.text(max_size=70))
def test_no_text_does_worse_than_being_no_cursor(text: str) -> None:
    found = HERE.read(text)
    assert found is None or 39 <= found <= 100
