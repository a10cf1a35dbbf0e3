"""Whether an event that is published again under its id is the same event."""

import json
from decimal import Decimal, InvalidOperation

from gateway.events import Draft, LoggedEvent


def same_content(draft: Draft, logged: LoggedEvent) -> bool:
    """Type, library and data are equal, and the time if the draft gives one."""
    return (
        draft.type == logged.type
        and draft.library_id == logged.library_id
        and (draft.timestamp is None or draft.timestamp == logged.timestamp)
        and same_json(draft.data, logged.data)
    )


def same_json(left: bytes, right: bytes) -> bool:
    """Whether two JSON texts mean the same (RFC 8259): in objects order is nothing, numbers are what they come to.

    So `1` is `1.0` and `10e-1`, but not `true`; numbers are compared exactly, however long. Of a name that is given
    twice in an object the last one counts.
    """
    return left == right or bool(_meaning(left) == _meaning(right))


def _meaning(text: bytes) -> object:
    return json.loads(text, parse_int=_number, parse_float=_number)


def _number(text: str) -> tuple[object, ...]:
    """Alone in a tuple, which is no other JSON value: a bare number would be equal to `true`."""
    try:
        return (Decimal(text),)
    except InvalidOperation:
        return ("beyond Decimal", text.lower())
