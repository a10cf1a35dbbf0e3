"""What a route says about itself, beside its handler: `openapi.py` writes the document from these.

The same models parse what comes in and write what goes out, so the document cannot drift from the code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from gateway.errors import GatewayError

OPERATION = "operation"
"""Where a handler's `opt` holds its `Operation`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Says:
    """One successful answer. `content` is anything pydantic can describe; None: no body."""

    description: str
    content: Any = None
    media_type: str = "application/json"
    example: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path. 401, 403 and 500 need no mention, nor do 400, 413 and 422 where there is a `body`."""

    summary: str
    description: str = ""
    answers: Mapping[int, Says]
    problems: tuple[type[GatewayError], ...] = ()
    query: type[BaseModel] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Request headers that mean something here, each with its description."""
    body: Any = None
    body_optional: bool = False
    body_partial: bool = False
    """Whether any field may be left out or null: a merge patch."""
    body_examples: Mapping[str, Any] = field(default_factory=dict)


def describes(operation: Operation, **opt: object) -> dict[str, Any]:
    """The `opt` of a handler that is described by *operation*."""
    return {OPERATION: operation, **opt}
