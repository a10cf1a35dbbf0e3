"""JSON as text: found, measured and freed of white space, but never rewritten (RFC 8259).

msgspec does the common case in well under a microsecond. What it refuses although it is JSON (half a surrogate pair,
written as an escape), and the exact place of what is wrong, is found here by the standard library's scanner.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import msgspec

from gateway.errors import MalformedInput

_STRING_BYTES = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_STRING_OR_SPACE = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")|[ \t\n\r]+', re.DOTALL)
_SPACE = re.compile(r"[ \t\n\r]*")
_STEPS = bytes(1 if byte in b"[{" else 255 if byte in b"]}" else 0 for byte in range(256))
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_BYTE_ORDER_MARK: Final = "\ufeff"


class TooDeep(Exception):
    """A value is nested so deep that it cannot be read; *pointer* says which, from where the reader stands."""

    def __init__(self, pointer: str = "") -> None:
        super().__init__(pointer)
        self.pointer = pointer


@dataclass(frozen=True, slots=True)
class Value:
    """A value, and the text that it was written as."""

    value: object
    text: str


def text_of(body: bytes) -> str:
    """Raises:
    MalformedInput: not UTF-8, or with a byte order mark.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedInput(f"not UTF-8: byte {error.start} cannot be read") from error
    if text.startswith(_BYTE_ORDER_MARK):
        raise MalformedInput("not JSON: it begins with a byte order mark")
    return text


def minified(text: bytes) -> bytes:
    """*text*, which is JSON, without its white space; numbers and strings stay as they are written."""
    try:
        return msgspec.json.format(text, indent=-1)
    except (msgspec.MsgspecError, RecursionError):
        return _STRING_OR_SPACE.sub(rb"\1", text)


def is_deeper_than(text: bytes, limit: int) -> bool:
    """Whether *text*, which is JSON, has objects and arrays nested more than *limit* deep."""
    if text.count(b"[") + text.count(b"{") <= limit:
        return False
    brackets = _STRING_BYTES.sub(b"", text).translate(_STEPS, _NO_BRACKETS)
    return max(accumulate(memoryview(brackets).cast("b")), default=0) > limit


class Scanner:
    """Walks through the outer levels of a JSON text, and knows how each value was written.

    Every method raises `MalformedInput`, with line and column, where the text is not JSON.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._decoder = json.JSONDecoder(parse_int=float, parse_constant=_refuse_constant)

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        match = _SPACE.match(self._text, self._at)
        self._at = self._at if match is None else match.end()
        return self._text[self._at : self._at + 1]

    def items(self, closing: str) -> Iterator[None]:
        """Yields in front of each item of the array (*closing* is `]`) or object (`}`) that begins here."""
        self._at += 1
        if self._take(closing):
            return
        while True:
            yield
            if self._take(closing):
                return
            self._expect(",")

    def name(self) -> str:
        """The name of an object's member, up to its colon."""
        if self.peek() != '"':
            raise self._malformed("a member's name in double quotes was expected")
        name = str(self.value().value)
        self._expect(":")
        return name

    def value(self) -> Value:
        """Raises:
        TooDeep: it cannot be read for its depth, nor anything after it.
        """
        self.peek()
        start = self._at
        try:
            value, self._at = self._decoder.raw_decode(self._text, start)
        except json.JSONDecodeError as error:
            self._at = error.pos
            raise self._malformed(error.msg) from error
        except RecursionError as error:
            raise TooDeep from error
        return Value(value, self._text[start : self._at])

    def end(self) -> None:
        """Nothing may follow."""
        if self.peek():
            raise self._malformed("something follows the value")

    def _take(self, character: str) -> bool:
        if found := self.peek() == character:
            self._at += 1
        return found

    def _expect(self, character: str) -> None:
        if not self._take(character):
            raise self._malformed(f"{character!r} was expected")

    def _malformed(self, why: str) -> MalformedInput:
        line = self._text.count("\n", 0, self._at) + 1
        column = self._at - self._text.rfind("\n", 0, self._at)
        return MalformedInput(f"not JSON: {why[:1].lower()}{why[1:]} at line {line}, column {column}")


def _refuse_constant(name: str) -> float:
    raise MalformedInput(f"not JSON: {name} is not a JSON number")
