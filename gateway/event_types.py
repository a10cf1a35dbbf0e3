"""Event types as the registry knows them: what their data looks like, and what happens to data that does not."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from gateway.events import Cursor

JsonSchema = dict[str, Any] | bool


class Validation(StrEnum):
    OFF = "off"
    """Nothing is checked."""
    WARN = "warn"
    """What does not fit is accepted, counted and logged."""
    ENFORCE = "enforce"
    """What does not fit is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTypeRecord:
    """`schema` is for the data of its events; None: there is none."""

    type: str
    description: str = ""
    schema: JsonSchema | None = None
    validation: Validation = Validation.OFF
    updated_at: datetime | None = None
    """None: it is built in, and nobody has changed it."""
    cursor: Cursor = Cursor(0)
    """The place of the notice of its last change: the later one counts."""


def _built_in(type_: str, description: str, *required: str, **properties: JsonSchema) -> EventTypeRecord:
    schema: JsonSchema = {"type": "object", "required": list(required), "properties": properties}
    return EventTypeRecord(type=type_, description=description, schema=schema)


_TEXT: Final[JsonSchema] = {"type": "string"}
_COUNT: Final[JsonSchema] = {"type": "integer", "minimum": 0}

BUILT_IN: Final = {
    record.type: record
    for record in (
        _built_in(
            "library.created",
            "A library was created.",
            "name",
            name=_TEXT,
            index_type=_TEXT,
            embedding_dimension=_COUNT,
        ),
        _built_in("library.deleted", "A library was deleted.", name=_TEXT),
        _built_in(
            "document.added",
            "A document was added to a library.",
            "document_id",
            document_id=_TEXT,
            title=_TEXT,
            num_chunks=_COUNT,
        ),
        _built_in("document.deleted", "A document was deleted from a library.", "document_id", document_id=_TEXT),
        _built_in(
            "search.performed",
            "A search was executed.",
            "query",
            query=_TEXT,
            k=_COUNT,
            results_count=_COUNT,
            duration_ms={"type": "number", "minimum": 0},
        ),
    )
}
"""By type. Their schemas name what is known, and welcome whatever stands beside it."""
