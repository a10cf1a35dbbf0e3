"""The filter: its words, what it lets through, and that no expression can hurt."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Fault, InvalidInput
from gateway.filters import Candidate, Filter, Matcher
from gateway.filters.cel import MAX_LENGTH, MAX_OPERATORS, Program, compile_expression
from tests.builders import an_event

# --- words -----------------------------------------------------------------------------------------------------------


def faults_of(**words: object) -> dict[str, str]:
    with pytest.raises(InvalidInput) as raised:
        Filter.parse(**words)  # type: ignore[arg-type]  # some are wrong on purpose
    return {fault.pointer: fault.detail for fault in raised.value.faults}


def test_order_and_repetition_make_no_other_filter() -> None:
    one = Filter.parse(library_ids=["a", "b"], types=["x.*", "y"])
    other = Filter.parse(library_ids=["b", "a", "b"], types=["y", "x.*"])
    assert one == other
    assert len({one, other}) == 1
    assert one != Filter.parse(library_ids=["a", "b"], types=["x.*", "y"], expression="true")


def test_nothing_said_is_no_limit() -> None:
    assert Filter.parse() == Filter() == Filter.parse(library_ids=None, types=None, expression=None)


def test_every_fault_is_named_where_it_is() -> None:
    faults = faults_of(library_ids=["ok", "", "a/b"], types=["a", "A", "a..b"], expression="event.")
    assert list(faults) == ["/library_ids/1", "/library_ids/2", "/types/1", "/types/2", "/filter"]


def test_an_empty_list_is_not_no_limit() -> None:
    assert list(faults_of(library_ids=[], types=[])) == ["/library_ids", "/types"]


def test_a_hundred_are_allowed_and_no_more() -> None:
    names = [f"t{number}" for number in range(101)]
    assert Filter.parse(types=names[:100], library_ids=names[:100]).types == frozenset(names[:100])
    assert list(faults_of(types=names, library_ids=names)) == ["/library_ids", "/types"]


@pytest.mark.parametrize("name", ["a", "a.b", "a_1.b2.c", "a.*", "a.b.*", "*", "gateway.*", "gateway.ping", "x" * 128])
def test_types_that_can_be_asked_for(name: str) -> None:
    assert Filter.parse(types=[name]).types == frozenset({name})


@pytest.mark.parametrize(
    "name",
    ["", "A", "a.", ".a", "a..b", "a b", "**", "*.a", "a.*.b", "a*", "a.b*", ".*", "é", "a\n", "x" * 129, "a-b", "٣"],
)
def test_types_that_cannot(name: str) -> None:
    assert list(faults_of(types=[name])) == ["/types/0"]


@pytest.mark.parametrize("name", ["a", "A_b.c:d-e", "...a", "550e8400-e29b-41d4-a716-446655440000", "x" * 128])
def test_libraries_that_can_be_asked_for(name: str) -> None:
    assert Filter.parse(library_ids=[name]).library_ids == frozenset({name})


@pytest.mark.parametrize("name", ["", ".", "..", "...", "a b", "a/b", "é", "a\n", "x" * 129, "\ud800"])
def test_libraries_that_cannot(name: str) -> None:
    assert list(faults_of(library_ids=[name])) == ["/library_ids/0"]


def test_what_a_database_needs_of_it() -> None:
    filter_ = Filter.parse(types=["b.c", "a.*", "a.b.*", "gateway.ping"])
    assert (filter_.exact_types, filter_.branches, filter_.every_type) == (
        frozenset({"b.c", "gateway.ping"}),
        ("a.", "a.b."),
        False,
    )
    assert filter_.names_gateways_own
    everything = Filter.parse(types=["*"])
    assert (everything.exact_types, everything.branches, everything.every_type) == (frozenset(), (), True)
    assert not everything.names_gateways_own


def test_what_a_confined_caller_may_not_ask_for() -> None:
    filter_ = Filter.parse(library_ids=["a", "b", "gateway"])
    assert filter_.outside(None) == frozenset()
    assert filter_.outside(frozenset({"b"})) == {"a"}
    assert Filter().outside(frozenset()) == frozenset()


# --- matching --------------------------------------------------------------------------------------------------------


def lets_through(filter_: Filter, libraries: frozenset[str] | None = None, **event: object) -> bool:
    return Matcher(filter_, libraries).matches(Candidate(an_event(**event)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("types", "name", "expected"),
    [
        (None, "document.added", True),
        (["*"], "document.added", True),
        (["document.added"], "document.added", True),
        (["document.added"], "document.added.twice", False),
        (["document.*"], "document.added", True),
        (["document.*"], "document.page.added", True),
        (["document.*"], "document", False),
        (["document.*"], "documents.added", False),
        (["document.page.*"], "document.added", False),
        (["a", "document.*"], "a", True),
        (None, "gateway.ping", False),
        (["*"], "gateway.ping", False),
        (["gateway.*"], "gateway.ping", True),
        (["gateway.*"], "gateway.delivery.dead", True),
        (["gateway.delivery.*"], "gateway.delivery.dead", True),
        (["gateway.delivery.*"], "gateway.ping", False),
        (["gateway.ping"], "gateway.ping", True),
        (["gateway.ping"], "gateway.pong", False),
        (["*", "gateway.ping"], "gateway.pong", False),
        (["*", "gateway.*"], "document.added", True),
        (["gateway.*"], "document.added", False),
        (["gateway_x.*"], "gateway_x.y", True),
        (None, "gateway_x.y", True),
    ],
)
def test_types_and_branches(types: list[str] | None, name: str, expected: bool) -> None:  # noqa: FBT001 - a table
    assert lets_through(Filter.parse(types=types), type=name) is expected


@pytest.mark.parametrize(
    ("asked", "confined", "library", "expected"),
    [
        (None, None, "a", True),
        (["a"], None, "a", True),
        (["a"], None, "b", False),
        (["a", "b"], None, "b", True),
        (None, {"a"}, "a", True),
        (None, {"a"}, "b", False),
        (["a", "b"], {"b", "c"}, "a", False),
        (["a", "b"], {"b", "c"}, "b", True),
        (["a", "b"], {"b", "c"}, "c", False),
        (None, set(), "a", False),
    ],
)
def test_libraries_and_confinement(
    asked: list[str] | None,
    confined: set[str] | None,
    library: str,
    expected: bool,  # noqa: FBT001 - a table
) -> None:
    confinement = None if confined is None else frozenset(confined)
    assert lets_through(Filter.parse(library_ids=asked), confinement, library_id=library) is expected


@pytest.mark.parametrize(
    ("audience", "confined", "asked", "expected"),
    [
        (None, None, None, True),
        (None, {"a"}, None, False),
        ({"a"}, {"a"}, None, True),
        ({"a"}, {"a", "b"}, None, True),
        ({"a", "b"}, {"a"}, None, False),
        ({"a", "b"}, None, None, True),
        (set(), {"a"}, None, True),
        ({"a"}, {"a"}, ["gateway"], True),
        ({"a"}, {"a"}, ["a"], False),
        (None, None, ["gateway"], True),
        (None, None, ["a"], False),
    ],
)
def test_the_gateways_own_events_are_for_those_who_may_see_what_they_are_about(
    audience: set[str] | None,
    confined: set[str] | None,
    asked: list[str] | None,
    expected: bool,  # noqa: FBT001 - a table
) -> None:
    assert (
        lets_through(
            Filter.parse(types=["gateway.*"], library_ids=asked),
            None if confined is None else frozenset(confined),
            type="gateway.delivery.dead",
            library_id="gateway",
            audience=None if audience is None else frozenset(audience),
        )
        is expected
    )


def test_a_refusal_says_which_part_it_was() -> None:
    matcher = Matcher(Filter.parse(library_ids=["a"], types=["x"], expression="event.data.n == 1"))

    def refusal(**event: object) -> str | None:
        return matcher.refusal(Candidate(an_event(**event)))  # type: ignore[arg-type]

    assert refusal(library_id="a", type="x", data=b'{"n":1}') is None
    assert refusal(library_id="a", type="x", data=b'{"n":2}') == "filter"
    assert refusal(library_id="a", type="y", data=b'{"n":1}') == "type"
    assert refusal(library_id="b", type="x", data=b'{"n":1}') == "library"


segments = st.sampled_from(["a", "b", "ab", "gateway"])
names = st.lists(segments, min_size=1, max_size=4).map(".".join)


@given(pattern=names, name=names)
def test_a_branch_is_everything_below_it(pattern: str, name: str) -> None:
    below = name.split(".")[: pattern.count(".") + 1] == pattern.split(".") and name.count(".") > pattern.count(".")
    assert lets_through(Filter.parse(types=[f"{pattern}.*"]), type=name) is below


# --- expressions -----------------------------------------------------------------------------------------------------


def comes_true(expression: str, data: object = None) -> bool:
    return lets_through(Filter.parse(expression=expression), data=json.dumps(data or {}).encode())


def fault_of(expression: str) -> str:
    return faults_of(expression=expression)["/filter"]


@pytest.mark.parametrize(
    ("expression", "data"),
    [
        ('event.data.priority == "high"', {"priority": "high"}),
        ('event.type == "document.added" && event.library_id == "books" && event.id == "evt_1"', {}),
        ('event.timestamp == "2025-10-27T12:00:00.000000Z"', {}),
        ('event.timestamp < "2026"', {}),
        ("has(event.data.a) && !has(event.data.b)", {"a": 0}),
        ("event.data.n == 1", {"n": 1.0}),
        ("event.data.n > 1 && event.data.n <= 2.5", {"n": 2}),
        ("event.data.a + event.data.b == 3", {"a": 1, "b": 2}),
        ("event.data.a + event.data.a == 3.0", {"a": 1.5}),
        ('event.data.a + "-" + event.data.b == "x-y"', {"a": "x", "b": "y"}),
        ("(event.data.n - 1) * 2 / 2 % 2 == 1", {"n": 4}),
        ("-event.data.n == -4", {"n": 4}),
        ('event.type in ["a", "document.added"]', {}),
        ('"x" in event.data.tags && "k" in event.data', {"tags": ["x"], "k": 1}),
        ("size(event.data.tags) == 2 && event.data.name.size() == 3", {"tags": [1, 2], "name": "äöü"}),
        ('event.data.s.startsWith("ab") && event.data.s.endsWith("cd") && event.data.s.contains("bc")', {"s": "abcd"}),
        ('event.data.s.contains(event.data.t) && !event.data.t.contains("z")', {"s": "abcd", "t": "bc"}),
        ('event.data["odd name"][1] == "b"', {"odd name": ["a", "b"]}),
        ("event.data.a.b.c == null", {"a": {"b": {"c": None}}}),
        ("event.data.l == [1, 2] || event.data.l == [3]", {"l": [3]}),
        ("event.data.on ? true : false", {"on": True}),
        ('"contains _+_" == "contains _+_"', {}),
        ("event.data.contains == 1", {"contains": 1}),
    ],
)
def test_expressions_that_come_true(expression: str, data: object) -> None:
    assert comes_true(expression, data)


@pytest.mark.parametrize(
    ("expression", "data"),
    [
        ("event.data.n == 1", {"n": 2}),
        ("event.data.n == 1", {}),  # an absent key is an error
        ("event.data.n", {"n": 1}),  # not a bool
        ("event.data.s", {"s": "true"}),
        ("1", {}),
        ("event.data.n > 1", {"n": "2"}),  # no such comparison
        ("event.data.n / 0 == 1", {"n": 1}),
        ("event.data.n == true", {"n": 1}),
        ("event.data.n + 1 > 0", {"n": 2**63 - 1}),  # out of range
        ("event.data.n + event.data.s == 1", {"n": 1, "s": "x"}),
        ("size(event.data.l + event.data.l) == 2", {"l": [1]}),  # lists are not joined
        ("event.data.s.contains(event.data.n)", {"s": "1", "n": 1}),
        ("size(event.data.s + event.data.s) > 0", {"s": "x" * 40_000}),  # longer than + makes
    ],
)
def test_expressions_that_do_not(expression: str, data: object) -> None:
    assert not comes_true(expression, data)


@pytest.mark.parametrize(
    "expression",
    [
        "event.data.l.all(x, x > 0)",
        "event.data.l.exists(x, true)",
        "event.data.l.exists_one(x, true)",
        "event.data.l.map(x, x) == []",
        "event.data.l.filter(x, true) == []",
        'event.data.s.matches("a+")',
        'matches(event.data.s, "a+")',
        'timestamp(event.timestamp) > timestamp("2025-01-01T00:00:00Z")',
        'duration("1s") == duration("1s")',
        "string(event.data.n) == '1'",
        "int(event.data.n) == 1",
        "double(event.data.n) == 1.0",
        "bytes(event.data.s) == b'a'",
        "type(event.data.n) == int",
        "dyn(1) == 1",
        "event.data.d.getFullYear() == 2025",
        "google.protobuf.Struct{} == {}",
        "[1] + [2] == [1, 2]",
        "cel.bind(x, 1, x == 1)",
        "event.?data == 1",
        "other.data == 1",
        "",
        " ",
        "event.data.n ==",
        "(" * 40 + "true" + ")" * 40,
        "true\x00",
        '"\ud800" == ""',
        "event" + ".a" * 500 + " == 1",
    ],
)
def test_expressions_that_are_refused(expression: str) -> None:
    assert fault_of(expression)


def test_a_refusal_names_the_place() -> None:
    assert fault_of("event.data.n ==").startswith("line 1, column 16: ")
    assert fault_of("true &&\n  nobody") == "line 2, column 3: undeclared reference to 'nobody'"


@pytest.mark.parametrize(
    ("unit", "joint", "operators_of"),
    [
        ("true", " || ", lambda count: count - 1),
        ("event.data.n == 1", " && ", lambda count: 2 * count - 1),
        ('event.data.s.contains("x")', " || ", lambda count: count - 1),
        ("has(event.data.n)", " || ", lambda count: count - 1),
        ('"x" in event.data', " || ", lambda count: 2 * count - 1),
        ("!event.data.b", " || ", lambda count: 2 * count - 1),
    ],
)
def test_so_many_operators_and_no_more(unit: str, joint: str, operators_of: object) -> None:
    assert callable(operators_of)
    for count in range(10, 40):
        expression = joint.join([unit] * count)
        if operators_of(count) <= MAX_OPERATORS:
            compile_expression(expression)
        else:
            assert f"has {operators_of(count)}" in fault_of(expression)


def test_elements_that_are_computed_count_as_operators() -> None:
    literals = ", ".join(str(number) for number in range(300))
    compile_expression(f"event.data.n in [{literals}]")
    assert "operators" in fault_of(f"event.data.n in [{', '.join(['event.data.n'] * 32)}]")
    assert "operators" in fault_of("event == {" + ", ".join(f'"{n}": event.data' for n in range(32)) + "}")


def test_so_many_characters_and_no_more() -> None:
    compile_expression(f'"{"x" * (MAX_LENGTH - 10)}" != ""')
    assert "at most 2048 characters" in fault_of("x" * (MAX_LENGTH + 1))


ODD_NUMBERS = (
    str(10**30),
    str(-(10**30)),
    str(2**63),
    str(2**64),
    "9" * 5000,
    "1e400",
    "-1e400",
    "1e-400",
    "-0",
    "1E5",
)
ODD_STRINGS = (r'"\ud800"', r'"a\udc00b"', r'{"\ud800":1}', r'[[{"k":["\udfff"]}]]', r'"\u0000"')


@pytest.mark.parametrize("odd", [*ODD_NUMBERS, *ODD_STRINGS, "null", "[]"])
def test_an_odd_neighbour_spoils_no_filter(odd: str) -> None:
    data = b'{"odd":%b,"n":1}' % odd.encode()
    assert lets_through(Filter.parse(expression="event.data.n == 1"), data=data)


@pytest.mark.parametrize(
    ("expression", "odd"),
    [
        ("event.data.odd > 9223372036854775807", str(10**30)),
        ("event.data.odd == 1e30", str(10**30)),
        ("event.data.odd < 0", str(-(10**30))),
        ("event.data.odd == 9223372036854775807", str(2**63 - 1)),
        ("event.data.odd == -9223372036854775808", str(-(2**63))),
        ('event.data.odd == "a\ufffdb"', r'"a\ud800b"'),
        ('event.data.odd == "admin\ufffdx" && event.data.odd != "admin"', r'"admin\u0000x"'),
        ("size(event.data.odd) == 3", r'{"a":1,"a\u0000b":2,"\u0000":3}'),
        ('event.data.odd == "\U0001f600"', r'"\ud83d\ude00"'),
        ("event.data.odd > 1.0", "1e400"),
    ],
)
def test_what_cel_cannot_hold_is_as_near_as_it_gets(expression: str, odd: str) -> None:
    assert lets_through(Filter.parse(expression=expression), data=b'{"odd":%b}' % odd.encode())


def test_an_error_that_is_raised_is_no_match_either() -> None:
    class Broken:
        def eval(self, _: object) -> object:
            raise RuntimeError("as the library does for some errors")

    assert Program(Broken()).is_true(object()) is False


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(neighbour=json_values)
def test_any_json_can_be_looked_at(neighbour: object) -> None:
    assert comes_true("event.data.n == 1", {"neighbour": neighbour, "n": 1})


WORDS = "event .data .n == 1 ( ) [ ] { } : , + ! - ? && || has( size( .contains( null true 1u 1.5 //"
tokens = st.sampled_from([*WORDS.split(), " in ", '"s"', "b'x'", "\n", "é"])


@given(expression=st.lists(tokens, max_size=12).map("".join) | st.text(max_size=60))
def test_no_expression_does_worse_than_being_refused(expression: str) -> None:
    filter_: Filter | None = None
    faults: list[Fault] = []
    try:
        filter_ = Filter.parse(expression=expression)
    except InvalidInput as error:
        faults.extend(error.faults)
    assert (filter_ is None) == bool(faults)
    assert all(fault.pointer == "/filter" and fault.detail for fault in faults)
    if filter_ is not None:
        assert lets_through(filter_, data=b'{"n":1}') in {True, False}


LIMIT = b'{"l":[' + b"1," * 127_000 + b"1]}"
TEXT = b'{"a":"' + b"a" * 170_000 + b'","b":"' + b"a" * 85_000 + b'b"}'
WORST = [
    (" || ".join(['"b" in event.data.l'] * 16), LIMIT),
    (" && ".join(["event.data.l == event.data.l"] * 16), LIMIT),
    ("[" + ", ".join(["event.data"] * 15) + "] == [" + ", ".join(["event.data"] * 15) + "]", LIMIT),
    ("size(" + " + ".join(["event.data.l"] * 25) + ") > 0", LIMIT),
    ("size(" + " + ".join(["event.data.a"] * 25) + ") > 0", TEXT),
    (" || ".join(["event.data.a.contains(event.data.b)"] * 32), TEXT),
]


@pytest.mark.parametrize(("expression", "data"), WORST, ids=["in", "equal", "elements", "join", "add", "contains"])
def test_the_worst_expression_on_the_largest_event_is_soon_done(expression: str, data: bytes) -> None:
    """Measured 1 to 65 ms; a second leaves room for a busy machine, and would not for what is quadratic."""
    matcher = Matcher(Filter.parse(expression=expression))
    candidate = Candidate(an_event(data=data))
    began = time.process_time()
    matcher.matches(candidate)
    assert time.process_time() - began < 1.0
