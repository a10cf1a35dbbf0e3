"""Pages of a listing: `page_size`, `page_token`, and `{data, next_page_token}`.

A token holds the place after which the next page starts, and says which list and which question it belongs to. So it
stays good while rows are added, and one of another list is recognised.
"""

import base64
import binascii
import hashlib
import json
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, Field

from gateway.errors import InvalidInput
from gateway.http.answers import Answer
from gateway.http.bodies import Query, QueryNumber

T = TypeVar("T")
P = TypeVar("P", str, int)

MAX_TOKEN = 1024


class Paged(Query):
    """What every list takes."""

    page_size: Annotated[
        Annotated[QueryNumber, Field(ge=1, le=500)], Field(description="How many rows a page has at most.")
    ] = 50
    page_token: Annotated[
        str | None,
        Field(description="`next_page_token` of the page before; the other parameters have to stay the same."),
    ] = None


class PageOf(Answer, Generic[T]):
    """A page, newest first. It may be short or empty and still have a token."""

    data: list[T]
    next_page_token: str | None = Field(description="For the next page; null when this is the last.")


def fingerprint(name: str, query: BaseModel, *more: str) -> str:
    """Which list, and which question of it: everything but the size and the place of the page."""
    question = query.model_dump_json(exclude={"page_size", "page_token"})
    return hashlib.sha256("\0".join((name, question, *more)).encode()).hexdigest()[:16]


def write_token(mark: str, position: str | int | None) -> str | None:
    """The token for what comes after *position*; None at the end of the list."""
    if position is None:
        return None
    return base64.urlsafe_b64encode(json.dumps([mark, position]).encode()).rstrip(b"=").decode()


def read_token(mark: str, token: str | None, kind: type[P]) -> P | None:
    """The position in *token*; None without one.

    Raises:
        InvalidInput: it is no token, or one of another list or another question.
    """
    if token is None:
        return None
    try:
        if len(token) > MAX_TOKEN:
            raise ValueError(token)
        mark_in_token, position = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True))
    except (ValueError, TypeError, RecursionError, binascii.Error):
        raise InvalidInput.at("/page_token", "is not a page token") from None
    if mark_in_token != mark or type(position) is not kind:
        raise InvalidInput.at("/page_token", "belongs to another list or another question")
    if not _is_place(position):
        raise InvalidInput.at("/page_token", "is not a page token")
    found: P = position
    return found


def _is_place(position: object) -> bool:
    """Whether a database can be asked about it: who forges a token gets an answer, and harms nothing."""
    if isinstance(position, str):
        return position.isascii() and position.isprintable()
    return isinstance(position, int) and 0 <= position < 2**63
