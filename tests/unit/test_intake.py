"""What publishers send: taken as it was written, or refused with every fault in its place."""

import json
import math
import time
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import GatewayError, InvalidInput, MalformedInput, TooLarge
from gateway.events import Draft, Event, EventType
from gateway.intake import MAX_DEPTH, MAX_EVENT_BYTES, MAX_FAULTS, draft_of, read_events
from gateway.intake.sameness import same_content, same_json
from tests.builders import NOON, a_draft, an_event

GOOD = {"type": "document.added", "library_id": "books", "data": {}}


def one(body: bytes) -> Draft:
    drafts, is_batch = read_events(body)
    assert not is_batch
    return drafts[0]


def sent(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def with_data(data: bytes) -> bytes:
    return b'{"type":"a","library_id":"l","data":%b}' % data


def faults_of(body: bytes) -> dict[str, str]:
    with pytest.raises(InvalidInput) as raised:
        read_events(body)
    return {fault.pointer: fault.detail for fault in raised.value.faults}


# --- what is taken ---------------------------------------------------------------------------------------------------


def test_an_event_with_everything() -> None:
    draft = one(sent(id="own:1_-", timestamp="2025-10-27T07:01:00.5+01:00", data={"n": 1}))
    assert (draft.id, draft.id_is_own, draft.type, draft.library_id) == ("own:1_-", True, "document.added", "books")
    assert draft.timestamp == datetime(2025, 10, 27, 6, 1, 0, 500_000, UTC)
    assert draft.data == b'{"n":1}'
    assert draft.audience is None


def test_what_may_be_left_out() -> None:
    draft = one(sent())
    assert draft.timestamp is None
    assert draft.id.startswith("evt_")
    assert not draft.id_is_own


def test_ids_that_are_made_rise_with_time() -> None:
    drafts, _ = read_events(b"[" + b",".join([sent()] * 100) + b"]")
    ids = [draft.id for draft in drafts]
    assert ids == sorted(set(ids))


def test_a_batch_keeps_its_order() -> None:
    drafts, is_batch = read_events(b" [" + b",".join(sent(id=f"i{number}") for number in range(1000)) + b"]\n")
    assert is_batch
    assert [draft.id for draft in drafts] == [f"i{number}" for number in range(1000)]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (b'{ "a" : [ 1 , 2 ] ,\n\t"b c" : "d  e" }\r\n', b'{"a":[1,2],"b c":"d  e"}'),
        (b'{"n":12345678901234567890123}', b'{"n":12345678901234567890123}'),
        (b'{"n":1.0,"m":-0,"o":1E+05,"p":1e999}', b'{"n":1.0,"m":-0,"o":1E+05,"p":1e999}'),
        (rb'{"s":"\u00e9\/\"\\ \n"}', rb'{"s":"\u00e9\/\"\\ \n"}'),
        ('{"s":"é \U0001f600 \u2028"}'.encode(), '{"s":"é \U0001f600 \u2028"}'.encode()),
        (
            rb'{ "s" : "\ud800", "t" : "a  b" , "u": "\\" , "v" : 1.50 }',
            rb'{"s":"\ud800","t":"a  b","u":"\\","v":1.50}',
        ),
        (rb'{"\ud800 " : {"\udc00\ud800" : [ ] }}', rb'{"\ud800 ":{"\udc00\ud800":[]}}'),
        (b'{"a":1,"a":2}', b'{"a":1,"a":2}'),
        (b'{"n":' + b"9" * 5000 + b"}", b'{"n":' + b"9" * 5000 + b"}"),
    ],
)
def test_data_is_kept_as_it_was_written_less_its_white_space(written: bytes, kept: bytes) -> None:
    assert one(with_data(written)).data == kept
    drafts, _ = read_events(b"[" + with_data(b"{}") + b" , " + with_data(written) + b"]")
    assert drafts[1].data == kept


def test_of_a_name_given_twice_the_last_one_counts_however_it_is_read() -> None:
    assert one(b'{"type":"a","type":"b","library_id":"l","data":{"x":1},"data":{}}').type == "b"
    draft = one(rb'{"type":"a","type":"b","library_id":"l","data":{"x":"\ud800"},"data":{"y":"\ud800"}}')
    assert (draft.type, draft.data) == ("b", rb'{"y":"\ud800"}')


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        (TRACE, TRACE),
        (None, None),
        ("", None),
        ("nonsense", None),
        (TRACE.upper(), None),
        (TRACE + "-more", None),
        (TRACE + "\n", None),
        ("ff" + TRACE[2:], None),
        ("00-" + "0" * 32 + TRACE[35:], None),
        (TRACE[:36] + "0" * 16 + "-01", None),
    ],
)
def test_a_traceparent_is_passed_on_if_it_is_one(header: str | None, kept: str | None) -> None:
    (draft,), _ = read_events(sent(), traceparent=header)
    assert draft.traceparent == kept


# --- what is refused -------------------------------------------------------------------------------------------------


WRONG: dict[str, tuple[object, ...]] = {
    "type": (
        *("", "A", "a.", ".a", "a..b", "a b", "a-b", "é", "a\n", "x" * 129, "*", "a.*"),
        *("gateway", "gateway.ping", "gateway.x.y", 1, None, [], {}, True),
    ),
    "library_id": ("", ".", "...", "a/b", "a b", "é", "x" * 129, "gateway", 1, None, []),
    "id": ("", "a.b", "a b", "é", "x" * 129, "stats", "stream", "ws", "a\n", 1, None),
    "data": ([], "x", 1, None, True),
    "timestamp": (
        *(1, None, "", "now", "2025-10-27", "2025-10-27T06:01Z", "1761545460"),
        *("2025-02-30T00:00:00Z", "20251027T060100Z"),
    ),
    "audience": ([],),
    "a/b~c": (1,),
    "": (1,),
}


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({name: value}, "/" + name.replace("~", "~0").replace("/", "~1"))
        for name, values in WRONG.items()
        for value in values
    ],
)
def test_each_fault_is_named_by_its_pointer(changes: dict[str, object], pointer: str) -> None:
    assert list(faults_of(sent(**changes))) == [pointer]
    assert list(faults_of(b"[" + sent() + b"," + sent(**changes) + b"]")) == [f"/1{pointer}"]


@pytest.mark.parametrize("name", ["type", "library_id", "data"])
def test_what_is_missing_is_named(name: str) -> None:
    body = json.dumps({key: value for key, value in GOOD.items() if key != name}).encode()
    assert faults_of(body) == {f"/{name}": "is missing"}


def test_all_faults_are_told_at_once() -> None:
    faults = faults_of(b'[{"type":"A","data":[],"x":1}, 7, {"type":1,"library_id":"gateway","data":{},"id":"ws"}]')
    assert set(faults) == {
        *("/0/type", "/0/library_id", "/0/data", "/0/x", "/1"),
        *("/2/type", "/2/library_id", "/2/id"),
    }


def test_but_not_more_than_a_hundred() -> None:
    assert len(faults_of(b"[" + b",".join([b"{}"] * 900) + b"]")) == MAX_FAULTS
    assert len(faults_of(b"[" + b",".join([b"1"] * 900) + b"]")) == MAX_FAULTS


def test_the_name_of_an_unknown_field_is_fit_to_be_shown() -> None:
    (pointer,) = faults_of(rb'{"type":"a","library_id":"l","data":{},"\ud800%s":1}' % (b"x" * 5000))
    assert pointer == "/\ufffd" + "x" * 99
    pointer.encode()


@pytest.mark.parametrize(
    "body", [b"[]", b" [ ] ", b"[" + b",".join([sent()] * 1001) + b"]", b"[" + b"1," * 5000 + b"1]"]
)
def test_a_batch_has_one_to_a_thousand_events(body: bytes) -> None:
    assert faults_of(body) == {"": "must hold 1 to 1000 events"}


@pytest.mark.parametrize("body", [b"1", b'"x"', b"null", b"true", b" 1.5e3 "])
def test_what_is_json_but_no_event(body: bytes) -> None:
    assert faults_of(body) == {"": "must be a JSON object"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"[",
        b"]",
        b"x",
        b"nul",
        b"'a'",
        b'{"type":"a"',
        b'{"type" "a"}',
        b"{type:1}",
        b'{"a":1,}',
        b"[1,]",
    ]
    + [
        sent() + b"x",
        sent() + sent(),
        b"[" + sent() + b"]]",
        b"[" + sent() + sent() + b"]",
        b'{"a":tru}',
        b'{"a":1 "b":2}',
    ]
    + [with_data(bad) for bad in (b"NaN", b"Infinity", b"-Infinity", b"{'a':1}", b'{"a":01}', b'{"a":.5}', b'{"a":+1}')]
    + [
        with_data(bad)
        for bad in (b'{"a":"\x01"}', b'{"a":"\\x"}', b'{"a":"\\u12"}', b'{"a":NaN}', b'{"a":1.}', b"{1:1}")
    ]
    + [
        b"\xff",
        sent() + b"\xff",
        with_data(b'{"a":"\xff"}'),
        with_data(b'{"a":"\xed\xa0\x80"}'),
        b"\xef\xbb\xbf" + sent(),
    ]
    + [sent().decode().encode("utf-16"), b"\x00", sent() + b"\x00", b"[" + with_data(rb'{"a":"\ud800"}') + b","],
)
def test_what_is_not_json_in_utf8_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedInput):
        read_events(body)


def test_malformed_input_is_told_where() -> None:
    with pytest.raises(MalformedInput, match="line 2, column 3"):
        read_events(b'{"type":"a",\n  x}')


def test_a_byte_order_mark_is_called_by_its_name() -> None:
    with pytest.raises(MalformedInput, match="byte order mark"):
        read_events(b"\xef\xbb\xbf" + sent())


def nested(depth: int) -> bytes:
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


def test_data_may_be_so_deep_and_no_deeper() -> None:
    assert one(with_data(nested(MAX_DEPTH))).data == nested(MAX_DEPTH)
    brackets_in_strings = b'{"s":"' + b"[" * 100 + rb"\"" + b"{" * 100 + b'"}'
    assert one(with_data(brackets_in_strings)).data == brackets_in_strings
    wide = b'{"l":[' + b"[],{}," * 500 + b"1]}"
    assert one(with_data(wide)).data == wide
    assert list(faults_of(with_data(nested(MAX_DEPTH + 1)))) == ["/data"]
    assert list(faults_of(with_data(b'{"s":"\\ud800","d":' + nested(MAX_DEPTH) + b"}"))) == ["/data"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (with_data(nested(500)), "/data"),
        (with_data(nested(100_000)), "/data"),
        (with_data(b"[" * 100_000), "/data"),
        (b"[" + with_data(b"{}") + b"," + with_data(nested(100_000)) + b"]", "/1/data"),
        (b'{"x":' + b"[" * 100_000, "/x"),
        (b"[" * 100_000, "/0"),
        (b"[" * 100_000 + b"]" * 100_000, "/0"),
        (b'{"a":' * 100_000, "/a"),
    ],
)
def test_a_hundred_thousand_brackets_do_no_harm(body: bytes, pointer: str) -> None:
    began = time.process_time()
    assert pointer in faults_of(body)
    assert time.process_time() - began < 0.5


def test_an_event_may_be_so_large_and_no_larger() -> None:
    data = b'{"s":"%b"}'
    event = an_event(id="i", library_id="l", type="a", data=data % b"")
    fits = data % (b"x" * (MAX_EVENT_BYTES - len(event.body)))
    body = b'{"id":"i","type":"a","library_id":"l","data":%b}'
    assert one(body % fits).data == fits
    assert len(an_event(id="i", library_id="l", type="a", data=fits).body) == MAX_EVENT_BYTES
    assert one(body % fits.replace(b":", b":" + b" " * 300_000)).data == fits
    with pytest.raises(TooLarge) as raised:
        read_events(b"[" + sent() + b"," + body % fits.replace(b"x", b"xx", 1) + b"]")
    assert [fault.pointer for fault in raised.value.faults] == ["/1"]
    with pytest.raises(TooLarge):
        read_events(body % (data % (b"x" * 10_000_000)))


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * 3_000_000 + b"1]",
        b"[" + b"{}," * 3_000_000 + b"x]",
        b"{" + b'"type":"a",' * 900_000 + b'"x":1}',
        b'{"s":"' + b"\\ud800" * 1_600_000,
        with_data(b'{"s":"' + b"\\ud800" * 1_600_000 + b'"}'),
    ],
)
def test_the_largest_body_is_soon_refused(body: bytes) -> None:
    began = time.process_time()
    with pytest.raises(GatewayError):
        read_events(body)
    assert time.process_time() - began < 1.5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=5)
surrogates = st.text(st.characters(categories=["Cs", "Lu"]), max_size=4)


@given(data=json_objects, indent=st.none() | st.integers(0, 3), ascii_only=st.booleans(), odd=surrogates)
def test_any_json_object_comes_through(data: dict[str, Any], indent: int | None, *, ascii_only: bool, odd: str) -> None:
    whole = {**data, "odd": odd}
    is_ascii = ascii_only or any("\ud800" <= character <= "\udfff" for character in odd)
    text = json.dumps(whole, indent=indent, ensure_ascii=is_ascii)
    compact = json.dumps(whole, separators=(",", ":"), ensure_ascii=is_ascii)
    assert one(with_data(text.encode())).data == compact.encode()


SIGNS = rb'{ } [ ] , : " \ \ud800 1 - e null NaN "type": "library_id": "data": "id": "timestamp": "a" {}'
pieces = st.sampled_from([*SIGNS.split(), b" ", b"\n", b"\xff", b"\xef\xbb\xbf", b"\x00", sent()])


@given(body=st.binary(max_size=60) | st.lists(pieces, max_size=25).map(b"".join))
@example(body=b'{"type":"a","library_id":"l","data":{}')
def test_no_bytes_do_worse_than_being_refused(body: bytes) -> None:
    try:
        drafts, _ = read_events(body)
    except GatewayError:
        return
    assert drafts
    assert all(isinstance(json.loads(draft.data), dict) for draft in drafts)


# --- from this process -----------------------------------------------------------------------------------------------


def test_an_event_of_this_process_becomes_a_draft() -> None:
    library = UUID("550e8400-e29b-41d4-a716-446655440000")
    moment = datetime(2025, 10, 27, 7, 1, tzinfo=timezone(timedelta(hours=1)))
    draft = draft_of(
        Event(type=EventType.CUSTOM, library_id=library, data={"b": 1, "a": "é"}, timestamp=moment, id="i")
    )
    assert (draft.type, draft.library_id, draft.id, draft.id_is_own) == ("custom", str(library), "i", True)
    assert draft.data == '{"b":1,"a":"é"}'.encode()
    assert draft.timestamp == datetime(2025, 10, 27, 6, 1, tzinfo=UTC)


def test_a_naive_time_is_utc() -> None:
    naive = datetime(2025, 10, 27, 6, 1)  # noqa: DTZ001 - the point of it
    event = Event(type=EventType("a"), library_id="l", timestamp=naive)
    assert draft_of(event).timestamp == datetime(2025, 10, 27, 6, 1, tzinfo=UTC)


def test_data_of_this_process_may_hold_what_programs_hold() -> None:
    data = {"id": UUID(int=7), "at": NOON, "inner": MappingProxyType({"t": (1, 2)}), "odd": "\ud800", "big": 10**30}
    draft = draft_of(Event(type=EventType("a"), library_id="l", data=data))
    assert json.loads(draft.data) == {
        "id": "00000000-0000-0000-0000-000000000007",
        "at": "2025-10-27T12:00:00.000000Z",
        "inner": {"t": [1, 2]},
        "odd": "\ud800",
        "big": 10**30,
    }


def circular() -> dict[str, Any]:
    data: dict[str, Any] = {}
    data["self"] = data
    return data


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"data": {"n": math.nan}}, "/data"),
        ({"data": {"n": object()}}, "/data"),
        ({"data": {("a", "b"): 1}}, "/data"),
        ({"data": {"s": {1, 2}}}, "/data"),
        ({"data": [1]}, "/data"),
        ({"data": circular()}, "/data"),
        ({"data": json.loads(nested(65))}, "/data"),
        ({"type": "gateway.ping"}, "/type"),
        ({"type": None}, "/type"),
        ({"library_id": "gateway"}, "/library_id"),
        ({"library_id": None}, "/library_id"),
        ({"id": "a.b"}, "/id"),
    ],
)
def test_an_event_of_this_process_is_held_to_the_same_rules(fields: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        draft_of(Event(**{"type": EventType("a"), "library_id": "l", **fields}))
    assert [fault.pointer for fault in raised.value.faults] == [pointer]


def test_an_event_of_this_process_may_be_too_large() -> None:
    with pytest.raises(TooLarge):
        draft_of(Event(type=EventType("a"), library_id="l", data={"s": "x" * MAX_EVENT_BYTES}))


# --- sameness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (b'{"a":1,"b":2}', b'{"b":2,"a":1}'),
        (b'{"a":1}', b'{"a":1.0}'),
        (b'{"a":100}', b'{"a":1e2}'),
        (b'{"a":0}', b'{"a":-0.0}'),
        (rb'{"a":"\u00e9"}', '{"a":"é"}'.encode()),
        (rb'{"a":"\ud83d\ude00"}', '{"a":"\U0001f600"}'.encode()),
        (b'{"a":' + b"9" * 5000 + b"}", b'{"a":' + b"9" * 5000 + b".0}"),
        (b'{"a":1e999999}', b'{"a":10e999998}'),
        (b'{"a":1e99999999999999999999}', b'{"a":1E99999999999999999999}'),
        (b'{"a":{"x":[1,{"y":2,"z":3}]}}', b'{"a":{"x":[1,{"z":3,"y":2}]}}'),
    ],
)
def test_the_same_json_written_otherwise(left: bytes, right: bytes) -> None:
    assert same_json(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (b'{"a":1}', b'{"a":true}'),
        (b'{"a":0}', b'{"a":false}'),
        (b'{"a":0}', b'{"a":null}'),
        (b'{"a":1}', b'{"a":"1"}'),
        (b'{"a":1}', b'{"a":[1]}'),
        (b'{"a":[1,2]}', b'{"a":[2,1]}'),
        (b'{"a":1}', b'{"a":1,"b":null}'),
        (b'{"a":12345678901234567890123}', b'{"a":12345678901234567890124}'),
        (b'{"a":0.1}', b'{"a":0.10000000000000000001}'),
        (b'{"a":9223372036854775809}', b'{"a":9223372036854775808.0}'),
        (b'{"a":1e999}', b'{"a":1e998}'),
        (b'{"a":1e99999999999999999999}', b'{"a":2e99999999999999999999}'),
        (rb'{"a":"\ud800"}', rb'{"a":"\ud801"}'),
        (b'{"a":"x"}', b'{"a":"x "}'),
    ],
)
def test_other_json(left: bytes, right: bytes) -> None:
    assert not same_json(left, right)


@given(left=json_objects, right=json_objects)
def test_sameness_is_that_of_the_values(left: dict[str, Any], right: dict[str, Any]) -> None:
    shuffled = dict(reversed(left.items()))
    assert same_json(json.dumps(left).encode(), json.dumps(shuffled, ensure_ascii=False, indent=1).encode())
    assert same_json(json.dumps(left).encode(), json.dumps(right).encode()) == (repr_of(left) == repr_of(right))


def repr_of(value: object) -> object:
    """Apart: true and 1; together: 1 and 1.0, 0 and -0.0."""
    match value:
        case bool() | None:
            return repr(value)
        case int() | float():
            return ("number", value)
        case list():
            return [repr_of(item) for item in value]
        case dict():
            return {key: repr_of(item) for key, item in value.items()}
        case _:
            return value


def test_the_time_counts_only_if_the_draft_gives_one() -> None:
    logged = an_event(timestamp=NOON)
    assert same_content(a_draft(), logged)
    assert same_content(a_draft(timestamp=NOON), logged)
    assert not same_content(a_draft(timestamp=NOON + timedelta(microseconds=1)), logged)
    assert not same_content(a_draft(type="other"), logged)
    assert not same_content(a_draft(library_id="other"), logged)
