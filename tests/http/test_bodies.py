"""Bodies, queries and page tokens: whatever comes in, it is understood or named."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from gateway.errors import GatewayError, InvalidInput, MalformedInput
from gateway.http.bodies import Body, Moment, Query, QueryNumber, decode, parse, parse_query, pointer
from gateway.http.merging import merge
from gateway.http.paging import read_token, write_token


class Thing(Body):
    name: str
    size: float = 1
    tags: list[str] = Field(default_factory=list)
    more: dict[str, Any] = Field(default_factory=dict)


class Question(Query):
    one: str | None = None
    many: list[str] | None = None
    count: QueryNumber = 1
    at: Moment = None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"nothing",
        b"{'a': 1}",
        b'{"name":NaN}',
        b'{"name":-Infinity}',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"{} x",
    ],
)
def test_what_is_not_json_in_utf8_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedInput):
        parse(Thing, body)


@pytest.mark.parametrize(
    ("body", "places"),
    [
        (b"[]", [""]),
        (b"null", [""]),
        (b"{}", ["/name"]),
        (b'{"name":3,"size":"1"}', ["/name", "/size"]),
        (b'{"name":"x","size":true}', ["/size"]),
        (b'{"name":"x","size":null}', ["/size"]),
        (b'{"name":"x","size":1e999}', ["/size"]),
        (b'{"name":"x","tags":["a",1]}', ["/tags/1"]),
        (b'{"name":"x","a/b~c":1}', ["/a~1b~0c"]),
        (b'{"name":"\\ud800"}', ["/name"]),
        (b'{"name":"\\u0000"}', ["/name"]),
        (b'{"name":"x","\\ud800":1}', ["/\ud800"]),
        (b'{"name":"x","more":{"\\ud800":[1,"\\udfff"]}}', ["/more/\ud800", "/more/\ud800/1"]),
        (b'{"name":"x","more":' + b'{"a":' * 64 + b"1" + b"}" * 65, ["/more" + "/a" * 63]),
        (b"[" * 200_000, [""]),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, [""]),
    ],
)
def test_json_that_is_not_what_it_has_to_be_is_named(body: bytes, places: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(Thing, body)

    assert [fault.pointer for fault in caught.value.faults] == places


def test_the_last_of_a_name_that_comes_twice_counts() -> None:
    assert parse(Thing, b'{"name":"a","name":"b"}').name == "b"


def test_numbers_beyond_64_bits_and_of_thousands_of_digits_harm_nothing() -> None:
    thing = parse(Thing, b'{"name":"x","more":{"n":123456789012345678901234567890}}')
    assert thing.more == {"n": 123456789012345678901234567890}
    with pytest.raises(InvalidInput):
        parse(Thing, b'{"name":"x","more":{"n":' + b"9" * 5000 + b"}}")


@given(st.binary(max_size=64) | st.text(max_size=64).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_raise_anything_but_a_named_error(body: bytes) -> None:
    with contextlib.suppress(GatewayError):
        parse(Thing, body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_any_json_is_read_as_python_reads_it_or_refused(document: object) -> None:
    body = json.dumps(document).encode()
    if "\\u0000" in body.decode():
        with pytest.raises(InvalidInput, match="NUL"):
            decode(body)
    else:
        assert decode(body) == json.loads(body)


@given(st.lists(st.text(alphabet="a~/01", min_size=1, max_size=3)))
def test_a_pointer_leads_back_to_its_place(path: list[str]) -> None:
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer(path).split("/")[1:]]

    assert steps == path


# --- queries ---------------------------------------------------------------------------------------------------------


def test_a_query_collects_what_repeats_and_passes_over_what_it_does_not_know() -> None:
    question = parse_query(Question, [("many", "a"), ("one", ""), ("many", "b"), ("utm_source", "x"), ("count", "7")])

    assert question == Question(one="", many=["a", "b"], count=7)


def test_a_plus_that_was_not_encoded_is_still_an_offset() -> None:
    at = parse_query(Question, [("at", "2025-10-27T08:01:00 02:00")]).at

    assert at.isoformat() == "2025-10-27T06:01:00+00:00"


@pytest.mark.parametrize(
    ("items", "place"),
    [
        ([("one", "a"), ("one", "b")], "/one"),
        ([("count", "1.0")], "/count"),
        ([("count", " 1")], "/count"),
        ([("count", "١")], "/count"),
        ([("count", "")], "/count"),
        ([("at", "")], "/at"),
        ([("one", "a\0")], "/one"),
    ],
)
def test_a_query_that_cannot_be_meant_is_named(items: list[tuple[str, str]], place: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_query(Question, items)

    assert [fault.pointer for fault in caught.value.faults] == [place]


# --- page tokens -----------------------------------------------------------------------------------------------------


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=50))
def test_a_page_token_leads_back_to_its_place(position: str) -> None:
    token = write_token("mark", position)

    assert token is not None
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert read_token("mark", token, str) == position


@given(st.text(max_size=100))
def test_no_text_is_taken_for_a_page_token(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_token("mark", text, int)

    assert caught.value.faults[0].pointer == "/page_token"


@pytest.mark.parametrize("position", ["a", True, None, 1.5, -1, 2**63, [1]])
def test_a_page_token_with_another_kind_of_place_is_refused(position: Any) -> None:
    token = write_token("mark", position) or "bnVsbA"
    with pytest.raises(InvalidInput):
        read_token("mark", token, int)


# --- JSON Merge Patch: the table of RFC 7396, appendix A -----------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_does_what_rfc_7396_says(target: object, patch: object, merged: object) -> None:
    assert merge(target, patch) == merged
