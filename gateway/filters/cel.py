"""Filter expressions: a part of CEL (Common Expression Language, cel.dev) that cannot hold up the process.

An expression compares and combines. Out of CEL are left, because of what they could cost: macros that loop, regular
expressions, joining lists (`+` 31 times over a list of 256 KiB took seconds), and whatever else is not named below.
`contains` and `+` are our own: CEL's `contains` is quadratic. What is left costs at most some 65 ms, on the largest
event with the worst expression, and some 3 µs on an ordinary one.
"""

import json
import re
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec
from cel_expr_python import cel

from gateway.errors import Fault, InvalidInput
from gateway.events import LoggedEvent
from gateway.filters.cel_ast import replace_functions, shape_of
from gateway.times import to_rfc3339

MAX_LENGTH: Final = 2048
MAX_OPERATORS: Final = 32
MAX_JOINED_LENGTH: Final = 65_536
"""Characters that `+` may make of two strings; beyond, the expression is in error."""

Activation: TypeAlias = Any
"""An event as expressions see it: the library's `cel.Activation`, which has no stubs that mypy finds."""

_POINTER = "/filter"
_FUNCTIONS = (
    *("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in"),
    *("_&&_", "_||_", "!_", "_?_:_", "@not_strictly_false"),
    *("_-_", "_*_", "_/_", "_%_", "-_", "_[_]"),
    *("size", "startsWith", "endsWith", "contains"),
)
_CONFIG = """
stdlib:
  include_macros: [has]
  include_functions:
    - {name: "_+_", overloads: [{id: add_int64}, {id: add_double}, {id: add_string}]}
""" + "".join(f'    - {{name: "{name}"}}\n' for name in _FUNCTIONS)


def _add(left: Any, right: Any) -> Any:  # noqa: ANN401 - int, float or str: CEL has chosen by their types
    if isinstance(left, str) and len(left) + len(right) > MAX_JOINED_LENGTH:
        raise ValueError(f"+ makes no string longer than {MAX_JOINED_LENGTH} characters")
    return left + right


def _contains(text: str, part: str) -> bool:
    return part in text


_OWN_FUNCTIONS = {"_+_": "_p_", "contains": "Contains"}
"""CEL's function, and which of ours is called in its place: its declaration type-checks, ours runs."""


def _own(name: str, *signatures: tuple[Any, Any, Any], is_member: bool, run: Any) -> Any:  # noqa: ANN401 - untyped library
    overloads = [
        cel.Overload(f"own_{name}_{number}", result, [left, right], is_member, impl=run)
        for number, (result, left, right) in enumerate(signatures)
    ]
    return cel.FunctionDecl(name, overloads)


_BOOL, _INT, _DOUBLE, _STRING = cel.Type.BOOL, cel.Type.INT, cel.Type.DOUBLE, cel.Type.STRING
_ENV = cel.NewEnv(
    config=cel.NewEnvConfigFromYaml(_CONFIG),
    variables={"event": cel.Type.Map(_STRING, cel.Type.DYN)},
    functions=[
        _own("_p_", (_INT,) * 3, (_DOUBLE,) * 3, (_STRING,) * 3, is_member=False, run=_add),
        _own("Contains", (_BOOL, _STRING, _STRING), is_member=True, run=_contains),
    ],
)


class Program:
    """A compiled expression."""

    __slots__ = ("_expression",)

    def __init__(self, expression: Any) -> None:  # noqa: ANN401 - `cel.Expression` of an untyped library
        self._expression = expression

    def is_true(self, activation: Activation) -> bool:
        """Whether it comes to `true`; an error (an absent key) or another type does not."""
        try:
            return self._expression.eval(activation).value() is True
        except RuntimeError:
            return False  # some errors are values in this library, others are raised


@lru_cache(maxsize=4096)
def compile_expression(expression: str) -> Program:
    """Raises:
    InvalidInput: at `/filter`, naming line and column where there is one.
    """
    if len(expression) > MAX_LENGTH:
        raise InvalidInput.at(_POINTER, f"must have at most {MAX_LENGTH} characters, has {len(expression)}")
    if half := _SURROGATE.search(expression):
        raise InvalidInput.at(_POINTER, f"character {half.start() + 1} is half a surrogate pair")
    try:
        serialized = _ENV.compile(expression).serialize()
    except RuntimeError as error:
        faults = _compiler_faults(str(error))
        raise InvalidInput(f"{_POINTER}: {faults[0].detail}", faults) from error
    shape = shape_of(serialized)
    operators = sum(not name[0].isalpha() for name in shape.functions) + shape.computed_elements
    if operators > MAX_OPERATORS:
        raise InvalidInput.at(
            _POINTER,
            f"must have at most {MAX_OPERATORS} operators, has {operators}"
            " (an element of a list or map that is not a literal counts as one)",
        )
    if shape.messages:
        raise InvalidInput.at(_POINTER, f"cannot make a message: {shape.messages[0]}")
    return Program(_ENV.deserialize(replace_functions(serialized, _OWN_FUNCTIONS)))


_COMPLAINT = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")


def _compiler_faults(words: str) -> list[Fault]:
    """The compiler's complaints, each with its place, as a person can use them."""
    faults: dict[Fault, None] = {}
    for line, column, complaint in _COMPLAINT.findall(words):
        text = complaint.removesuffix(" [INVALID_ARGUMENT]").replace(" (in container '')", "")
        place = f"line {line}, column {column}: " if int(line) > 0 else ""
        faults[Fault(_POINTER, place + text)] = None
    return list(faults)[:10] or [Fault(_POINTER, words.removeprefix("CANCELLED: ").partition(" [")[0])]


_NEEDS_CARE = re.compile(rb"[0-9]{19}|[eE]\+?[0-9]{3}|\\u(?:[dD][89a-fA-F]|0000)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_HELD = re.compile("[\0\ud800-\udfff]")


def activation_of(event: LoggedEvent) -> Activation:
    """*event* for every expression to look at, with what CEL cannot hold made holdable.

    An integer beyond 64 bits, or half a surrogate pair, anywhere in it would make every expression on it an error, and
    a string would end at its first U+0000: they become the nearest floating-point number, and U+FFFD.
    """
    data = _decode_carefully(event.data) if _NEEDS_CARE.search(event.data) else msgspec.json.decode(event.data)
    return _ENV.Activation(
        {
            "event": {
                "id": event.id,
                "type": str(event.type),
                "library_id": event.library_id,
                "timestamp": to_rfc3339(event.timestamp),
                "data": data,
            }
        }
    )


def _decode_carefully(data: bytes) -> object:
    return _held(json.loads(data, parse_int=_int64_or_float))


def _int64_or_float(digits: str) -> int | float:
    number = float(digits)
    return int(digits) if -(2.0**63) < number < 2.0**63 else number


def _held(value: object) -> object:
    if isinstance(value, str):
        return _NOT_HELD.sub("\ufffd", value)
    if isinstance(value, list):
        return [_held(item) for item in value]
    if isinstance(value, dict):
        return {_NOT_HELD.sub("\ufffd", key): _held(item) for key, item in value.items()}
    return value
