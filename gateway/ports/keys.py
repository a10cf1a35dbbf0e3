"""Keys of those who call."""

from typing import Protocol

from gateway.keys import Key
from gateway.listing import Listing


class KeyStore(Protocol):
    async def add(self, key: Key) -> None: ...

    async def by_hash(self, hash_: bytes) -> Key | None: ...

    async def get(self, key_id: str) -> Key | None: ...

    async def list(self, *, limit: int, before: str | None) -> Listing[Key, str]:
        """Newest first."""

    async def revoke(self, key_id: str) -> bool:
        """Forget the key and append `gateway.key.revoked`, together. False: there is none."""

    async def signing_key(self) -> bytes:
        """The key that signs stream tokens: made once, kept with the log."""
