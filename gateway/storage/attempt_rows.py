"""Rows of the attempts table as values and back."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, bindparam, select

from gateway.storage.connection import Connection
from gateway.storage.dialects import insert_new
from gateway.storage.tables import attempts
from webhooks.deliveries import Attempt, Failure

_OF_DELIVERIES = select(attempts.c.delivery_id, attempts.c.number).where(
    attempts.c.delivery_id.in_(bindparam("ids", expanding=True))
)


def attempt_of(row: Row[Any]) -> Attempt:
    return Attempt(
        number=row.number,
        started_at=row.started_at,
        duration=row.duration,
        connect=row.connect,
        first_byte=row.first_byte,
        status_code=row.status_code,
        error=row.error,
        failure=None if row.failure is None else Failure(row.failure),
        request_headers=row.request_headers,
        response_headers=row.response_headers,
        response_body=row.response_body,
    )


def row_of_attempt(delivery_id: str, attempt: Attempt) -> dict[str, Any]:
    return {
        "delivery_id": delivery_id,
        "number": attempt.number,
        "started_at": attempt.started_at,
        "duration": attempt.duration,
        "connect": attempt.connect,
        "first_byte": attempt.first_byte,
        "status_code": attempt.status_code,
        "error": None if attempt.error is None else _storable(attempt.error),
        "failure": None if attempt.failure is None else attempt.failure.value,
        "request_headers": _storable_headers(attempt.request_headers),
        "response_headers": _storable_headers(attempt.response_headers),
        "response_body": attempt.response_body,
    }


async def store_attempts(connection: Connection, made: Sequence[tuple[str, Attempt, int]]) -> None:
    """Store what was *made*, each once: the delivery, its attempt, and how many attempts it had before.

    The deliveries are held. A batch that is stored again, because its commit broke, finds its attempts there, and so
    does one whose attempt another process has made as well. They are looked for, since the time belongs to the key
    where attempts are kept by the day; but only those that may be there, by their deliveries' counts.
    """
    fresh: dict[tuple[str, int], Attempt] = {}
    for id_, attempt, _ in made:
        fresh.setdefault((id_, attempt.number), attempt)
    if again := {id_ for id_, attempt, count in made if attempt.number <= count}:
        for id_, number in await connection.execute(_OF_DELIVERIES, {"ids": sorted(again)}):
            fresh.pop((id_, number), None)
    if fresh:
        rows = [row_of_attempt(id_, attempt) for (id_, _), attempt in fresh.items()]
        await connection.execute(insert_new(connection, attempts), rows)


def _storable_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {_storable(name): _storable(value) for name, value in headers.items()}


def _storable(text: str) -> str:
    """A receiver may answer bytes that are no text, which arrive as lone surrogates: no engine keeps those, and one
    such answer must not keep a whole batch from being stored. PostgreSQL keeps no NUL either."""
    if text.isascii():
        return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
