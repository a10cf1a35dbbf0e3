"""What goes out: JSON answers, and the models that say what is in them."""

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from litestar import MediaType, Response
from pydantic import BaseModel, ConfigDict, PlainSerializer, WithJsonSchema

from gateway.times import to_rfc3339

Time = Annotated[
    datetime,
    PlainSerializer(to_rfc3339),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2025-10-27T06:01:00.000000Z"]}),
]
"""RFC 3339 in UTC, with `Z` and six digits."""


class Answer(BaseModel):
    """A JSON object that is answered. Every field is always there; null says that there is none."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_mode_override="serialization")


def answer(content: Answer, status: int = HTTPStatus.OK) -> Response[bytes]:
    return raw(content.model_dump_json().encode(), status)


def raw(content: bytes, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """JSON that is written already."""
    return Response(content=content, status_code=status, media_type=MediaType.JSON, headers=headers)


def nothing() -> Response[None]:
    return Response(content=None, status_code=HTTPStatus.NO_CONTENT)
