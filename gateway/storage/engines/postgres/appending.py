"""Append to the log in one trip, which is its own transaction.

    here    ──▶ one statement: hold the log's row, move it on, insert, commit ──▶ their places
    `write` ──▶ BEGIN ──▶ hold ──▶ (known ids?) ──▶ insert ──▶ move on ──▶ COMMIT

Others wait for the log's row meanwhile: for the server alone, and not for a process that may be slow, or stopped.
"""

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from gateway.events import Cursor, Draft, LoggedEvent, accepted
from gateway.storage.columns import Names
from gateway.storage.engines.postgres.connection import DIALECT
from gateway.storage.engines.statements import Statements
from gateway.times import from_micros, to_micros

_NAMES = Names()

# An UPDATE that had to wait goes on from the row as it is then, while what is looked for may be older: an id that was
# taken meanwhile is found by the index on ids, which knows of all.
_APPEND = """WITH moved AS (
    UPDATE log SET head = head + $1, last_accepted_at = greatest(last_accepted_at, $2)
    WHERE NOT EXISTS (SELECT FROM events WHERE events.id = ANY($3::varchar[]))
    RETURNING head - $1 AS before, last_accepted_at AS accepted_at
), added AS (
    INSERT INTO events (cursor, id, type, library_id, timestamp, accepted_at, data, traceparent, audience)
    SELECT before + place, id, type, library_id, coalesce(timestamp, accepted_at), accepted_at, data, traceparent,
        audience
    FROM moved, unnest(
        $4::varchar[], $5::varchar[], $6::varchar[], $7::bigint[], $8::bytea[], $9::varchar[], $10::bytea[]
    ) WITH ORDINALITY AS v(id, type, library_id, timestamp, data, traceparent, audience, place)
)
SELECT before, accepted_at FROM moved
"""


async def append_at_once(
    raw: asyncpg.Connection, statements: Statements, drafts: Sequence[Draft], *, now: datetime
) -> list[LoggedEvent]:
    """*drafts*, at least one, as they are in the log now; none of them: an id that a publisher chose is there already.

    Raises:
        asyncpg.UniqueViolationError: an id has been taken just now. Nothing was written.
        asyncpg.PostgresError, asyncpg.InterfaceError, OSError: see `server.FAULTS`.
    """
    chosen = [draft.id for draft in drafts if draft.id_is_own]
    rows = [
        (
            draft.id,
            draft.type,
            draft.library_id,
            None if draft.timestamp is None else to_micros(draft.timestamp),
            draft.data,
            draft.traceparent,
            _NAMES.process_bind_param(draft.audience, DIALECT),
        )
        for draft in drafts
    ]
    values = (len(drafts), to_micros(now), chosen, *[list(column) for column in zip(*rows, strict=True)])
    statements.tell(_APPEND, values)
    found = await raw.fetchrow(_APPEND, *values)
    if found is None:
        return []
    at = from_micros(found["accepted_at"])
    return [accepted(draft, Cursor(found["before"] + place), at) for place, draft in enumerate(drafts, 1)]
