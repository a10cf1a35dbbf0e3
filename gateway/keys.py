"""Who calls: keys, their scopes, and the libraries they are confined to."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Scope(StrEnum):
    PUBLISH = "publish"
    STREAM = "stream"
    SUBSCRIPTIONS = "subscriptions"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as it is kept: its hash, never itself. `libraries` None: every library."""

    id: str
    name: str
    scopes: frozenset[Scope]
    libraries: frozenset[str] | None
    created_at: datetime
    hash: bytes

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def sees(self, libraries: frozenset[str] | None) -> bool:
        """Whether it holds all of *libraries* (None: all there are)."""
        return holds(self.libraries, libraries)


def holds(held: frozenset[str] | None, libraries: frozenset[str] | None) -> bool:
    """Whether who holds *held* holds all of *libraries*; None: all there are."""
    return held is None or (libraries is not None and libraries <= held)


def new_secret() -> str:
    """A key to hand to a caller: 256 random bits, recognisable by its beginning."""
    return f"arrw_{secrets.token_urlsafe(32)}"


def hash_secret(secret: str) -> bytes:
    """What is kept of it. Keys are random and long, so one round of SHA-256 is enough."""
    return hashlib.sha256(secret.encode()).digest()
