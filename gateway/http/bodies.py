"""Bodies and queries, strictly: what comes in is what its model says, or an error that names each wrong place.

Two steps, so that the two errors stay apart: `decode` answers 400 for what is not JSON in UTF-8, `parse` 422 for JSON
that is not what it has to be.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Annotated, Any, Never, TypeVar, get_origin

import msgspec
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails

from gateway.errors import Fault, InvalidInput, MalformedInput
from gateway.times import parse_rfc3339

MAX_DEPTH = 64
MAX_FAULTS = 100
_SURROGATE = re.compile("[\ud800-\udfff]")
_LOST_PLUS = re.compile(r" (\d\d:\d\d)$", re.ASCII)
"""`+02:00` in a query that was not percent-encoded arrives as ` 02:00`."""


class Body(BaseModel):
    """A JSON body. Strict: no string is taken for a number, no unknown field is passed over."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Query(BaseModel):
    """Query parameters. Unknown ones are passed over, as everywhere on the web (caches and proxies add their own)."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], body: bytes) -> M:
    """*body* as a *model*.

    Raises:
        MalformedInput: it is not JSON in UTF-8.
        InvalidInput: it is JSON, with wrong, missing or unknown fields.
    """
    return validate(model, decode(body))


def decode(body: bytes) -> object:
    """The JSON in *body*, of strings that any database holds and numbers that JSON can write again.

    Of a name that comes twice in one object the last counts.
    """
    try:
        document: object = msgspec.json.decode(body)
    except RecursionError:
        raise InvalidInput.at("", f"is nested more than {MAX_DEPTH} deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        document = _decode_slowly(body)
    if faults := list(islice(_faults(document, "", 1), MAX_FAULTS)):
        raise InvalidInput(_summary(faults), faults)
    return document


def validate(model: type[M], document: object) -> M:
    """*document*, which `decode` answered, as a *model*; `InvalidInput` when it is not one."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        faults = [fault for detail in error.errors(include_url=False) for fault in _faults_of(detail)]
        raise InvalidInput(_summary(faults), faults) from None


def parse_query(model: type[M], items: Iterable[tuple[str, str]]) -> M:
    """Query parameters as a *model*: its lists collect repeated ones, anything else may come once."""
    given: dict[str, list[str]] = {}
    for name, value in items:
        given.setdefault(name, []).append(value)
    document: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if (values := given.get(name)) is None:
            continue
        if _is_list(field.annotation):
            document[name] = values
        elif len(values) > 1:
            raise InvalidInput.at(f"/{name}", "is given more than once")
        else:
            document[name] = values[0]
    if faults := list(islice(_faults(document, "", 1), MAX_FAULTS)):
        raise InvalidInput(_summary(faults), faults)
    return validate(model, document)


def pointer(path: Iterable[str | int]) -> str:
    """*path* as a JSON pointer (RFC 6901).

    >>> pointer(["headers", "x/y~z", 0])
    '/headers/x~1y~0z/0'
    """
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


# --- fields that several resources share -----------------------------------------------------------------------------


def _moment(text: object) -> object:
    return parse_rfc3339(_LOST_PLUS.sub(r"+\1", text)) if isinstance(text, str) else text


def _whole_number(text: object) -> object:
    if isinstance(text, str) and re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    return text


def _unique(items: list[str]) -> list[str]:
    if len(set(items)) != len(items):
        raise ValueError("names the same thing twice")
    return items


Moment = Annotated[
    Any,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2025-10-27T06:01:00Z"]}),
]
"""A time in RFC 3339, as an aware `datetime`."""
QueryNumber = Annotated[int, BeforeValidator(_whole_number)]
Unique = AfterValidator(_unique)
Id = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_:-]+$")]
"""The id of an event, or of anything that has a TypeID."""


# --- inside ----------------------------------------------------------------------------------------------------------


def _decode_slowly(body: bytes) -> object:
    """What msgspec refuses may still be JSON (half a surrogate pair, a number out of range): say which it is."""
    try:
        return json.loads(body.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise MalformedInput(f"the body is not UTF-8 (at byte {error.start})") from None
    except json.JSONDecodeError as error:
        what = "is empty" if not body.strip() else f"is not JSON: {error.msg} (line {error.lineno}:{error.colno})"
        raise MalformedInput(f"the body {what}") from None
    except RecursionError:
        raise InvalidInput.at("", f"is nested more than {MAX_DEPTH} deep") from None
    except ValueError:
        # Python reads no number of more than 4,300 digits.
        raise InvalidInput.at("", "holds a number that is too long") from None


def _refuse_constant(name: str) -> Never:
    raise MalformedInput(f"the body is not JSON: {name} is not a JSON value")


def _faults(value: object, place: str, depth: int) -> Iterable[Fault]:
    if isinstance(value, str):
        if "\0" in value or (not value.isascii() and _SURROGATE.search(value)):
            yield Fault(place, "holds a NUL character or half of a surrogate pair")
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield Fault(place, "is a number out of range")
    elif isinstance(value, (dict, list)) and depth > MAX_DEPTH:
        yield Fault(place, f"is nested more than {MAX_DEPTH} deep")
    elif isinstance(value, dict):
        for name, member in value.items():
            inner = place + pointer([name])
            yield from _faults(name, inner, depth)
            yield from _faults(member, inner, depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _faults(item, f"{place}/{index}", depth + 1)


def _is_list(annotation: object) -> bool:
    if get_origin(annotation) is list:
        return True
    return any(get_origin(part) is list for part in getattr(annotation, "__args__", ()))


def _place(detail: ErrorDetails) -> list[str | int]:
    return [step for step in detail["loc"] if step != "[key]"]


_WORDS: Mapping[str, str] = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "model_type": "has to be a JSON object",
    "dict_type": "has to be a JSON object",
    "list_type": "has to be a list",
    "string_type": "has to be a string",
    "int_type": "has to be a whole number",
    "float_type": "has to be a number",
    "bool_type": "has to be true or false",
}


def _faults_of(detail: ErrorDetails) -> Iterable[Fault]:
    place = pointer(_place(detail))
    if isinstance(error := detail.get("ctx", {}).get("error"), InvalidInput):
        # A model that looked at its fields together has named the places itself.
        return [Fault(place + fault.pointer, fault.detail) for fault in error.faults]
    return [Fault(place, _words(detail))]


def _words(detail: ErrorDetails) -> str:
    """What is wrong, without repeating what was sent: it may be a secret."""
    if (words := _WORDS.get(detail["type"])) is not None:
        return words
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    message = detail["msg"]
    return message[0].lower() + message[1:]


def _summary(faults: list[Fault]) -> str:
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{first.pointer or 'the body'} {first.detail}{more}"
