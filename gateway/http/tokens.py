"""Stream tokens: signed, short-lived, for readers that cannot set headers (EventSource and WebSocket in browsers).

A token is a JWT (RFC 7519), HS256 and nothing else, with the audience `stream`. It names the key it was made from and
the libraries and types it is good for; it is never good for more than its key, and ends with it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from gateway.errors import Unauthenticated
from gateway.http.keyring import KeyRing
from gateway.ports.keys import KeyStore
from gateway.times import Clock

ALGORITHM = "HS256"
AUDIENCE = "stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamToken:
    """What a token is good for; None: all libraries, all types."""

    key_id: str
    libraries: frozenset[str] | None
    types: frozenset[str] | None
    expires_at: datetime


class TokenDesk:
    """Hands out tokens, and reads them back."""

    def __init__(self, store: KeyStore, keyring: KeyRing, clock: Clock) -> None:
        self._store = store
        self._keyring = keyring
        self._clock = clock
        self._key: bytes | None = None

    async def issue(
        self,
        *,
        key_id: str,
        libraries: frozenset[str] | None,
        types: frozenset[str] | None,
        lifetime: timedelta,
    ) -> tuple[str, datetime]:
        """A new token, and when it runs out (a whole second)."""
        expires_at = (self._clock() + lifetime).replace(microsecond=0)
        claims = {
            "aud": AUDIENCE,
            "sub": key_id,
            "exp": int(expires_at.timestamp()),
            "libraries": None if libraries is None else sorted(libraries),
            "types": None if types is None else sorted(types),
        }
        return jwt.encode(claims, await self._signing_key(), algorithm=ALGORITHM), expires_at

    async def read(self, text: str) -> StreamToken:
        """What *text* is good for now.

        Raises:
            Unauthenticated: it is no token of this gateway, has run out, or its key was revoked.
        """
        try:
            claims: dict[str, Any] = jwt.decode(
                text,
                await self._signing_key(),
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                # The time is compared below, with the clock that was handed in.
                options={"require": ["aud", "sub", "exp"], "verify_exp": False},
            )
        except (jwt.InvalidTokenError, ValueError) as error:
            raise Unauthenticated("this is not a stream token of this gateway") from error
        expires_at = datetime.fromtimestamp(claims["exp"], UTC)
        if self._clock() >= expires_at:
            raise Unauthenticated("this stream token has run out")
        if (key := await self._keyring.by_id(claims["sub"])) is None:
            raise Unauthenticated("the key of this stream token was revoked")
        libraries = _set(claims["libraries"])
        if key.libraries is not None:
            libraries = key.libraries if libraries is None else libraries & key.libraries
        return StreamToken(key_id=key.id, libraries=libraries, types=_set(claims["types"]), expires_at=expires_at)

    async def _signing_key(self) -> bytes:
        if self._key is None:
            self._key = await self._store.signing_key()
        return self._key


def _set(items: list[str] | None) -> frozenset[str] | None:
    return None if items is None else frozenset(items)
