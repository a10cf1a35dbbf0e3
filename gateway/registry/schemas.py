"""Schemas of events' data: JSON Schema 2020-12, held to what can be checked in a bounded time.

    document ──compile_schema──▶ Schema ──misfits(data)──▶ faults, or none

A schema is read as far as it unfolds: each `$ref` counts as often as it is followed, so none may lead back to itself.
How far it unfolds, times how much is in the data, is what a check costs; what would cost too much is not begun.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from jsonschema_rs import Draft202012Validator, ReferencingError, RegexOptions, ValidationError

from gateway.errors import Fault, InvalidInput
from gateway.event_types import JsonSchema

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
MAX_SCHEMA_BYTES: Final = 64 * 2**10
MAX_WEIGHT: Final = 2_000
"""How far one may unfold, in subschemas; some keywords count as several."""
MAX_EFFORT: Final = 2_000_000
"""Of one check: the weight times the values in the data. About 0.1 s at the very worst."""
MAX_PATTERN_EFFORT: Final = 4 * 2**20
"""Likewise: KiB of all compiled patterns, times the bytes of the data. About 1 s at the very worst, mostly 10 ms."""
PATTERN_KIB: Final = (1, 2, 4, 8, 16, 32)
"""How large a compiled pattern may be, in steps: the next larger one is what it counts as."""
DFA_BYTES: Final = 2**18
THOROUGH_EFFORT: Final = 20_000
"""Up to here all that is wrong is told, beyond it the first."""
MAX_FAULTS: Final = 100
MAX_DETAIL: Final = 200

_CHARGES: Final = {"multipleOf": 20, "uniqueItems": 50, "unevaluatedProperties": 10, "unevaluatedItems": 10}
_COMPOSITE: Final = 30
"""For each value in an object or array of an `enum` or `const`: they are compared one by one."""
_PLAIN_IN_LIST: Final = 16
"""So many plain values in a list count as one subschema."""
_UNEVALUATED: Final = ("unevaluatedProperties", "unevaluatedItems")
_UNEVALUATED_FACTOR: Final = 3
"""What stands beside one of these is looked at again and again."""
_NOT_TAKEN: Final = ("$id", "$schema", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$recursiveAnchor")


class Schema:
    """A schema that has been compiled. Made by `compile_schema`."""

    def __init__(self, validator: Draft202012Validator, cost: "Cost") -> None:
        self._validator = validator
        self._cost = cost

    def misfits(self, data: bytes) -> list[Fault]:
        """What is wrong with *data*, a JSON object; nothing if it fits. Pointers begin at *data* itself."""
        effort = self._cost.weight * _values_in(data)
        if effort > MAX_EFFORT or self._cost.pattern_kib * len(data) > MAX_PATTERN_EFFORT:
            return [Fault("", "is too large to be checked against the schema of its type")]
        document = _decoded(data)
        try:
            self._validator.validate(document)
            return []
        except ValidationError as error:
            if effort + self._cost.pattern_kib * len(data) > THOROUGH_EFFORT:
                return [_fault(error)]
            return [_fault(each) for each in islice(self._validator.iter_errors(document), MAX_FAULTS)]
        except ValueError:  # what is wrong is a number of more digits than Python reads
            return [Fault("", "does not fit the schema of its type")]


def compile_schema(document: JsonSchema) -> Schema:
    """*document* as a schema.

    Raises:
        InvalidInput: it is none, or one that is not taken; the pointers begin at *document* itself.
    """
    if len(msgspec.json.encode(document)) > MAX_SCHEMA_BYTES:
        raise InvalidInput.at("", f"is larger than {MAX_SCHEMA_BYTES} bytes")
    _check_keywords(document, "")
    cost = _Unfolding(document).cost(document, "")
    try:
        return Schema(_validator_of(document, PATTERN_KIB[-1]), cost)
    except ValidationError as error:
        raise InvalidInput.at(_pointer(error.instance_path), _shortened(error.message.removeprefix("it "))) from None
    except (ValueError, ReferencingError) as error:
        raise InvalidInput.at("", f"is not a JSON Schema: {_shortened(str(error))}") from None


@dataclass(frozen=True, slots=True)
class Cost:
    """`weight`: how many subschemas it unfolds to; `pattern_kib`: of all compiled patterns in them."""

    weight: int = 0
    pattern_kib: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.weight + other.weight, self.pattern_kib + other.pattern_kib)

    def times(self, factor: int) -> "Cost":
        return Cost(self.weight * factor, self.pattern_kib * factor)


class _Unfolding:
    """Adds up what a check costs. Whatever looks like a subschema is counted as one: too much harms nobody."""

    def __init__(self, document: JsonSchema) -> None:
        self._document = document
        self._known: dict[str, Cost] = {}
        self._under_way: set[str] = set()

    def cost(self, node: object, at: str) -> Cost:
        if at in self._known:
            return self._known[at]
        self._under_way.add(at)
        cost = self._of_object(node, at) if isinstance(node, dict) else self._of_others(node, at)
        self._under_way.remove(at)
        if cost.weight > MAX_WEIGHT:
            raise InvalidInput.at("", f"unfolds to more than {MAX_WEIGHT:,} subschemas")
        self._known[at] = cost
        return cost

    def _of_object(self, node: dict[str, Any], at: str) -> Cost:
        cost = Cost(weight=1)
        for name, value in node.items():
            below = f"{at}/{_escaped(name)}"
            cost += self.cost(value, below) + self._charge(name, value, below)
        return cost.times(_UNEVALUATED_FACTOR) if any(name in node for name in _UNEVALUATED) else cost

    def _of_others(self, node: object, at: str) -> Cost:
        if not isinstance(node, list):
            return Cost()
        parts = [self.cost(part, f"{at}/{index}") for index, part in enumerate(node) if isinstance(part, dict | list)]
        return sum(parts, Cost(weight=(len(node) - len(parts) + _PLAIN_IN_LIST - 1) // _PLAIN_IN_LIST))

    def _charge(self, name: str, value: object, at: str) -> Cost:
        """What a keyword costs beside the subschemas below it."""
        match name, value:
            case "$ref", str():
                return self._of_reference(value, at)
            case "pattern", str():
                return Cost(1, _pattern_kib(value, at))
            case "patternProperties", dict():
                return Cost(1, sum(_pattern_kib(pattern, f"{at}/{_escaped(pattern)}") for pattern in value))
            case "enum" | "const", list() | dict():
                return Cost(_COMPOSITE * _values_in_composites(value))
        return Cost(_CHARGES.get(name, 0))

    def _of_reference(self, reference: str, at: str) -> Cost:
        if reference != "#" and not reference.startswith("#/"):
            raise InvalidInput.at(at, "has to lead into the schema itself, like #/$defs/name")
        place, node = "", self._document
        for token in unquote(reference[1:]).split("/")[1:]:
            node = _below(node, token.replace("~1", "/").replace("~0", "~"), at)
            place = f"{place}/{token}"
        if place in self._under_way:
            raise InvalidInput.at(at, "must not lead back to where it stands")
        return self.cost(node, place)


def _below(node: Any, name: str, at: str) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(node, dict) and name in node:
        return node[name]
    if isinstance(node, list) and name.isdecimal() and int(name) < len(node):
        return node[int(name)]
    raise InvalidInput.at(at, "leads nowhere")


def _check_keywords(node: object, at: str) -> None:
    """Refuse what would lead to other schemas, or make this one be read in another way."""
    for name, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        below = f"{at}/{_escaped(str(name))}"
        if name in _NOT_TAKEN and isinstance(value, str | bool):
            if name == "$schema" and at == "" and str(value).removesuffix("#") == DIALECT:
                continue
            if name != "$id" or at != "":
                wanted = f"has to be {DIALECT}" if name == "$schema" and at == "" else "is not taken here"
                raise InvalidInput.at(below, wanted)
        _check_keywords(value, below)


def _pattern_kib(pattern: str, at: str) -> int:
    for kib in PATTERN_KIB:
        try:
            _validator_of({"pattern": pattern}, kib)
        except ValidationError:
            continue
        return kib
    raise InvalidInput.at(at, "is not a pattern, or too large a one, or one that looks around or back")


def _validator_of(document: JsonSchema, pattern_kib: int) -> Draft202012Validator:
    limit = pattern_kib * 2**10
    return Draft202012Validator(
        document,
        offline=True,
        mask="it",
        pattern_options=RegexOptions(size_limit=limit, dfa_size_limit=DFA_BYTES),
    )


def _decoded(data: bytes) -> object:
    try:
        return msgspec.json.decode(data)
    except msgspec.MsgspecError:
        # A number beyond floating point is checked as it is; half a surrogate pair has no UTF-8, and becomes U+FFFD.
        return _held(json.loads(data, parse_int=Decimal, parse_float=Decimal))


def _held(value: object) -> object:
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_held(item) for item in value]
        case dict():
            return {_held(name): _held(item) for name, item in value.items()}
    return value


def _values_in(data: bytes) -> int:
    """About how many values there are in *data*, which is JSON; never less."""
    return data.count(b",") + data.count(b"[") + data.count(b"{") + 1


def _values_in_composites(value: object) -> int:
    """Values in the objects and arrays below *value*, they themselves included."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(1 + _size(part) for part in parts if isinstance(part, dict | list))


def _size(value: object) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(1 + _size(part) for part in parts)


def _fault(error: ValidationError) -> Fault:
    return Fault(_pointer(error.instance_path), _shortened(error.message.removeprefix("it ")))


def _pointer(path: Sequence[str | int]) -> str:
    return "".join(f"/{_escaped(str(part))}" for part in path)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_DETAIL else f"{text[:MAX_DETAIL]}…"
