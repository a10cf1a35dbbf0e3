"""Which schemas are taken, what does not fit them, and that none of them can hold up the process."""

import json
import time
from typing import Any

import pytest

from gateway.errors import InvalidInput
from gateway.event_types import BUILT_IN
from gateway.registry.schemas import DIALECT, MAX_SCHEMA_BYTES, compile_schema

WORST_SECONDS = 5.0
"""A check takes a second at the very worst; this machine may be busy. What is not bounded takes minutes, or years."""


def as_json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def misfits(schema: Any, data: object) -> list[tuple[str, str]]:
    content = data if isinstance(data, bytes) else as_json(data)
    return [(fault.pointer, fault.detail) for fault in compile_schema(schema).misfits(content)]


def refused(schema: Any) -> tuple[str, str]:
    with pytest.raises(InvalidInput) as error:
        compile_schema(schema)
    [fault] = error.value.faults
    return fault.pointer, fault.detail


# --- what does not fit -----------------------------------------------------------------------------------------------


def test_everything_that_does_not_fit_is_named_where_it_is() -> None:
    schema = {
        "required": ["name"],
        "properties": {"count": {"type": "integer"}, "deep": {"properties": {"a/b~": {"items": {"enum": ["x", "y"]}}}}},
    }
    assert misfits(schema, {"name": 1, "count": 2, "deep": {"a/b~": ["x", "y"]}}) == []
    assert misfits(schema, {"count": "secret", "deep": {"a/b~": ["x", "secret"]}}) == [
        ("", '"name" is a required property'),
        ("/count", 'is not of type "integer"'),
        ("/deep/a~1b~0/1", 'is not one of "x" or "y"'),
    ]


@pytest.mark.parametrize("schema", [True, {}, {"type": "object"}])
def test_a_schema_may_be_as_short_as_can_be(schema: Any) -> None:
    assert misfits(schema, {}) == []
    assert len(misfits(False, {})) == 1


def test_of_much_that_does_not_fit_some_is_told_and_of_very_much_the_first() -> None:
    schema = {"properties": {"a": {"items": {"type": "string"}}}}
    assert len(misfits(schema, {"a": [1] * 2_000})) == 100
    assert misfits(schema, {"a": [1] * 20_000}) == [("/a/0", 'is not of type "string"')]


def test_what_is_wrong_is_told_in_a_few_words() -> None:
    [(_, detail)] = misfits({"properties": {"a": {"enum": ["x" * 100] * 1 + ["y" * 500]}}}, {"a": "z"})
    assert len(detail) < 250


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        (b'{"a":1e999}', "/a"),
        (b'{"a":%b}' % (b"9" * 400), "/a"),
        (b'{"a":%b}' % (b"9" * 5_000), ""),  # more digits than Python reads
        (b'{"a":"\\ud800"}', "/a"),
        (b'{"a":1,"b\\udfff":"\\ud800"}', ""),
    ],
)
def test_json_that_most_tools_cannot_hold_is_checked_all_the_same(data: bytes, pointer: str) -> None:
    schema = {
        "properties": {"a": {"type": "number", "maximum": 9}},
        "patternProperties": {"^b": False},
        "additionalProperties": False,
    }
    [(where, _)] = misfits(schema, data)
    assert where in {pointer, "/b\ufffd"}


def test_a_reference_is_followed_within_the_schema() -> None:
    schema = {
        "$schema": DIALECT,
        "$id": "https://example.com/order",
        "$ref": "#/$defs/an~1order",
        "$defs": {"an/order": {"properties": {"n": {"$ref": "#/$defs/a%20n"}}}, "a n": {"type": "integer"}},
    }
    assert misfits(schema, {"n": 1}) == []
    assert misfits(schema, {"n": ""}) == [("/n", 'is not of type "integer"')]


@pytest.mark.parametrize("type_", BUILT_IN)
def test_the_built_in_schemas_welcome_what_they_do_not_know(type_: str) -> None:
    seen: dict[str, dict[str, Any]] = {
        "library.created": {"name": "My Library", "index_type": "hnsw", "embedding_dimension": 1024},
        "library.deleted": {"name": "My Library"},
        "document.added": {"document_id": "a1b2", "title": "My Document", "num_chunks": 3},
        "document.deleted": {"document_id": "a1b2"},
        "search.performed": {"query": "machine learning", "k": 10, "results_count": 8, "duration_ms": 145},
    }
    assert misfits(BUILT_IN[type_].schema, {**seen[type_], "more": {"of": "it"}}) == []
    wrong: dict[str, Any] = {name: [] for name in seen[type_]}
    assert len(misfits(BUILT_IN[type_].schema, wrong)) == len(wrong)


# --- what is no schema -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "pointer", "words"),
    [
        ({"properties": {"a/b": {"minimum": "x"}}}, "/properties/a~1b/minimum", 'is not of type "number"'),
        ({"type": "objekt"}, "/type", "not valid"),
        ({"required": [1]}, "/required/0", 'is not of type "string"'),
        ({"$id": "::no uri ["}, "", "URI"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema", DIALECT),
        ({"properties": {"a": {"$id": "x"}}}, "/properties/a/$id", "not taken"),
        ({"$defs": {"a": {"$anchor": "x"}}}, "/$defs/a/$anchor", "not taken"),
        ({"allOf": [{"$dynamicRef": "#x"}]}, "/allOf/0/$dynamicRef", "not taken"),
        ({"$ref": "#/$defs/none"}, "/$ref", "leads nowhere"),
        ({"items": {"pattern": "("}}, "/items/pattern", "is not a pattern"),
        ({"patternProperties": {"a/(": True}}, "/patternProperties/a~1(", "is not a pattern"),
        ({"title": "x" * MAX_SCHEMA_BYTES}, "", "larger than"),
    ],
)
def test_what_is_no_schema_is_named_where_it_is(schema: Any, pointer: str, words: str) -> None:
    where, why = refused(schema)
    assert where == pointer
    assert words in why


@pytest.mark.parametrize(
    "reference",
    ["http://127.0.0.1:1/x.json", "file:///etc/passwd", "other.json", "https://json-schema.org/draft/2020-12/schema"],
)
def test_nothing_is_fetched(reference: str) -> None:
    pointer, words = refused({"properties": {"a": {"$ref": reference}}})
    assert (pointer, words) == ("/properties/a/$ref", "has to lead into the schema itself, like #/$defs/name")


# --- what would take too long ----------------------------------------------------------------------------------------


def doubling(levels: int) -> dict[str, Any]:
    """Each level refers to the next one twice."""
    defs: dict[str, Any] = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": defs | {f"a{levels}": {"type": "object"}}, "$ref": "#/$defs/a0"}


def unevaluated(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"properties": {"x": True}}
    for _ in range(levels):
        schema = {"allOf": [schema], "unevaluatedProperties": {"type": "integer"}}
    return schema


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (doubling(30), "unfolds to more than"),
        (unevaluated(12), "unfolds to more than"),
        ({"enum": [[n] for n in range(500)]}, "unfolds to more than"),
        ({"const": {str(n): n for n in range(500)}, "enum": [{str(n): n for n in range(500)}]}, "unfolds to more than"),
        ({"$ref": "#"}, "back to where it stands"),
        ({"properties": {"a": {"items": {"$ref": "#/properties/a"}}}}, "back to where it stands"),
        ({"$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"not": {"$ref": "#/$defs/a"}}}}, "back to where"),
        ({"pattern": "(a{1000}){1000}"}, "is not a pattern"),
        ({"pattern": r"^(a+)\1$"}, "is not a pattern"),
        ({"pattern": "(?=a)"}, "is not a pattern"),
    ],
)
def test_a_schema_that_could_be_slow_is_refused_at_once(schema: Any, words: str) -> None:
    began = time.perf_counter()
    assert words in refused(schema)[1]
    assert time.perf_counter() - began < WORST_SECONDS


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        (doubling(6), {str(n): n for n in range(10_000)}),
        (unevaluated(3), {str(n): n for n in range(20_000)}),
        ({"properties": {"a": {"uniqueItems": True}}}, {"a": list(range(40_000))}),
        ({"properties": {"a": {"items": {"enum": [[n] for n in range(20)]}}}}, {"a": [[19]] * 30_000}),
        ({"properties": {"a": {"items": {"allOf": [{"minimum": -n} for n in range(900)]}}}}, {"a": [1] * 100_000}),
        ({"properties": {"a": {"items": {"multipleOf": 0.3}}}}, {"a": [0] * 100_000}),
        ({"properties": {"a": {"pattern": "(x+x+)+y"}}}, {"a": "x" * 250_000}),
        ({"properties": {"a": {"pattern": "1[01]{300}[2-9a-z]"}}}, {"a": "0110" * 60_000}),
        ({"properties": {"a": {"allOf": [{"pattern": f"[01]{{20}}{n}"} for n in range(90)]}}}, {"a": "01" * 120_000}),
        ({"properties": {"a": {"items": {"type": "string"}}}}, {"a": [1] * 100_000}),
    ],
)
def test_no_check_takes_long_whatever_is_checked(schema: Any, data: Any) -> None:
    compiled, content = compile_schema(schema), as_json(data)
    began = time.perf_counter()
    compiled.misfits(content)
    assert time.perf_counter() - began < WORST_SECONDS


TOO_LARGE = [("", "is too large to be checked against the schema of its type")]


def test_a_number_beyond_floating_point_is_one() -> None:
    assert misfits({"properties": {"a": {"type": "number"}}}, b'{"a":1e999}') == []


def test_what_would_cost_too_much_is_not_checked_and_does_not_fit() -> None:
    schema = {"properties": {"a": {"items": {"allOf": [{"minimum": -n} for n in range(900)]}}}}
    assert misfits(schema, {"a": [1] * 1_000}) == []
    assert misfits(schema, {"a": [1] * 3_000}) == TOO_LARGE
    large_pattern = {"properties": {"a": {"pattern": "^[a-z]{300}$"}}}
    assert misfits(large_pattern, {"a": "a" * 300, "b": "b" * 50_000}) == []
    assert misfits(large_pattern, {"a": "a" * 300, "b": "b" * 250_000}) == TOO_LARGE
