"""Filter expressions: a part of CEL (Common Expression Language, cel.dev) that cannot hold up the process."""

import json
import re
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec
from cel_expr_python import cel

from gateway.errors import InvalidInput
from gateway.events import LoggedEvent
from gateway.times import to_rfc3339

MAX_LENGTH: Final = 2048
MAX_OPERATORS: Final = 32

Activation: TypeAlias = Any
"""An event as expressions see it: the library's `cel.Activation`, which has no type stubs that mypy finds."""

_FUNCTIONS = (
    *("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in"),
    *("_&&_", "_||_", "!_", "_?_:_", "@not_strictly_false"),
    *("_+_", "_-_", "_*_", "_/_", "_%_", "-_", "_[_]"),
    *("size", "startsWith", "endsWith", "contains"),
)
_CONFIG = "stdlib:\n  include_macros: [has]\n  include_functions:\n" + "".join(
    f'    - name: "{name}"\n' for name in _FUNCTIONS
)
_ENV = cel.NewEnv(
    config=cel.NewEnvConfigFromYaml(_CONFIG), variables={"event": cel.Type.Map(cel.Type.STRING, cel.Type.DYN)}
)


class Program:
    """A compiled expression."""

    __slots__ = ("_expression",)

    def __init__(self, expression: cel.Expression) -> None:
        self._expression = expression

    def is_true(self, activation: Activation) -> bool:
        """Whether it comes to `true`; an error (an absent key) or another type does not."""
        try:
            return self._expression.eval(activation).value() is True
        except RuntimeError:
            return False


@lru_cache(maxsize=4096)
def compile_expression(expression: str) -> Program:
    """Raises:
    InvalidInput: at `/filter`, naming line and column.
    """
    try:
        return Program(_ENV.compile(expression))
    except (RuntimeError, ValueError) as error:
        raise InvalidInput.at("/filter", str(error)) from error


_TROUBLE = re.compile(rb"[0-9]{19}|\\u[dD][89a-fA-F]|[eE][+]?[0-9]{3}")
_SURROGATE = re.compile("[\ud800-\udfff]")


def activation_of(event: LoggedEvent) -> Activation:
    """*event* for every expression to look at; what CEL cannot hold is made holdable.

    One integer beyond 64 bits, or half a surrogate pair, anywhere in it would make every expression on it an error.
    """
    data: Any = _decode_carefully(event.data) if _TROUBLE.search(event.data) else msgspec.json.decode(event.data)
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


def _decode_carefully(data: bytes) -> Any:  # noqa: ANN401 - any JSON
    return _without_surrogates(json.loads(data, parse_int=_int64_or_float))


def _int64_or_float(digits: str) -> int | float:
    number = float(digits)
    return int(digits) if abs(number) < 2**63 else number


def _without_surrogates(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_SURROGATE.sub("\ufffd", key): _without_surrogates(item) for key, item in value.items()}
    return value
