"""Look into a compiled expression, and put functions of our own in place of CEL's.

The library shows what it compiled only as serialised protobuf (cel.expr.CheckedExpr, github.com/google/cel-spec). Of
that a reader needs to know little: every part is `tag, length, bytes`, and an Expr is one of

    3 const │ 4 ident │ 5 select(1 operand, 2 field) │ 6 call(1 target, 2 function, 3 args)
    7 list(1 elements) │ 8 struct(1 message name, 2 entries(2 field, 3 map key, 4 value))
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

_ANY_VALUE: Final = 2
_CHECKED_EXPR: Final = 4


class _Kind(IntEnum):
    CONST = 3
    SELECT = 5
    CALL = 6
    LIST = 7
    STRUCT = 8
    COMPREHENSION = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What an expression consists of."""

    functions: tuple[str, ...]
    """Of each call its function; operators have names like `_==_` and `!_`."""
    computed_elements: int
    """How many elements its lists and maps have that are not literals."""
    messages: tuple[str, ...]
    """The names of the protobuf messages it makes."""


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int


def shape_of(serialized: bytes) -> Shape:
    functions: list[str] = []
    messages: list[str] = []
    computed = 0
    for kind, body in _nodes(serialized):
        match kind:
            case _Kind.CALL:
                functions += [_text(serialized, span) for field, span in _fields(serialized, body) if field == 2]
            case _Kind.LIST:
                computed += sum(_is_computed(serialized, span) for _, span in _fields(serialized, body))
            case _Kind.STRUCT:
                messages += [_text(serialized, span) for field, span in _fields(serialized, body) if field == 1]
                computed += sum(_is_computed(serialized, span) for span in _values(serialized, body))
    return Shape(functions=tuple(functions), computed_elements=computed, messages=tuple(filter(None, messages)))


def replace_functions(serialized: bytes, names: Mapping[str, str]) -> bytes:
    """The same expression calling other functions. Their names must be as long as those they stand in for."""
    result = bytearray(serialized)
    for kind, body in _nodes(serialized):
        if kind != _Kind.CALL:
            continue
        for field, span in _fields(serialized, body):
            if field == 2 and (other := names.get(_text(serialized, span))) is not None:
                if len(other) != span.end - span.start:
                    raise ValueError(f"{other!r} is not as long as the name it stands in for")
                result[span.start : span.end] = other.encode()
    return bytes(result)


def _nodes(data: bytes) -> Iterator[tuple[int, _Span]]:
    """Each Expr in *data*: which of the kinds it is, and that part of it."""
    waiting = [
        expr
        for outer, checked in _fields(data, _Span(0, len(data)))
        if outer == _ANY_VALUE
        for inner, expr in _fields(data, checked)
        if inner == _CHECKED_EXPR
    ]
    while waiting:
        for kind, body in _fields(data, waiting.pop()):
            yield kind, body
            waiting += _children(data, kind, body)


def _children(data: bytes, kind: int, body: _Span) -> list[_Span]:
    match kind:
        case _Kind.SELECT:
            return [span for field, span in _fields(data, body) if field == 1]
        case _Kind.CALL:
            return [span for field, span in _fields(data, body) if field in {1, 3}]
        case _Kind.LIST:
            return [span for field, span in _fields(data, body) if field == 1]
        case _Kind.STRUCT:
            return _values(data, body)
        case _Kind.COMPREHENSION:
            raise ValueError("loops are not expected here")
        case _:
            return []


def _values(data: bytes, struct: _Span) -> list[_Span]:
    """The keys and values of a map, or the values of a message."""
    return [
        part
        for field, entry in _fields(data, struct)
        if field == 2
        for inner, part in _fields(data, entry)
        if inner in {3, 4}
    ]


def _is_computed(data: bytes, expr: _Span) -> bool:
    return all(kind != _Kind.CONST for kind, _ in _fields(data, expr))


def _text(data: bytes, span: _Span) -> str:
    return data[span.start : span.end].decode()


def _fields(data: bytes, span: _Span) -> Iterator[tuple[int, _Span]]:
    """The length-delimited fields of a protobuf message: number and where the bytes are. Others are passed over."""
    at = span.start
    while at < span.end:
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                _, at = _varint(data, at)
            case 1:
                at += 8
            case 2:
                length, at = _varint(data, at)
                yield tag >> 3, _Span(at, at + length)
                at += length
            case 5:
                at += 4
            case other:
                raise ValueError(f"not protobuf: wire type {other}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
