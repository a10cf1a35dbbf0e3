"""What can go wrong with a caller's request. `gateway.http.problems` holds the one table that maps these to HTTP.

GatewayError
├── MalformedInput          400  not JSON, not UTF-8
├── Unauthenticated         401
├── Forbidden               403
├── NotFound                404
├── Conflict                409
├── CursorGone              410
├── TooLarge                413
├── InvalidInput            422  JSON, but not what it has to be (a ValueError as well)
└── Overloaded              503  try again later
    └── StorageUnavailable       the disk or the database refuses
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, where (a JSON pointer, RFC 6901) and why."""

    pointer: str
    detail: str


class GatewayError(Exception):
    """Base of everything a caller can be told about. `detail` is a sentence for a person."""

    def __init__(self, detail: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = tuple(faults)


class MalformedInput(GatewayError):
    """The bytes are not JSON in UTF-8."""


class Unauthenticated(GatewayError):
    """No key or token, or one that is unknown, expired or revoked."""


class Forbidden(GatewayError):
    """The key is good but may not do this."""


class NotFound(GatewayError):
    """No such thing, or none that the caller may see."""


class Conflict(GatewayError):
    """It is there already, with other content, or is in a state that does not allow this."""


class CursorGone(GatewayError):
    """The log no longer holds this place, or never gave it out."""


class TooLarge(GatewayError):
    """A body or an event is over its limit."""


class InvalidInput(GatewayError, ValueError):
    """Well-formed, but with wrong, missing or unknown fields. `faults` names each."""

    @classmethod
    def at(cls, pointer: str, detail: str) -> "InvalidInput":
        return cls(f"{pointer or 'body'}: {detail}", [Fault(pointer, detail)])


class Overloaded(GatewayError):
    """It cannot be taken now and nothing of it was; `retry_after_seconds` later it may be."""

    def __init__(self, detail: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class StorageUnavailable(Overloaded):
    """The database cannot be used now. Nothing was stored, or, if a commit itself broke, perhaps all of it."""
