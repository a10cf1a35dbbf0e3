"""Keys at hand: looked up once, forgotten as soon as they are revoked, in this process or in another."""

import json
from collections import OrderedDict

from gateway.events import Page
from gateway.keys import Key, hash_secret
from gateway.ports.keys import KeyStore

REVOKED = "gateway.key.revoked"
"""The notice that a revoked key leaves in the log, with `{"key_id": …}`."""


class KeyRing:
    """A small cache before the `KeyStore`. Only keys that exist are held: a wrong one costs its sender a look-up.

    A look-up under way while something is revoked is answered, but not kept: it may be older than the revocation.
    """

    def __init__(self, store: KeyStore, *, capacity: int = 1024) -> None:
        self._store = store
        self._capacity = capacity
        self._by_hash: OrderedDict[bytes, Key] = OrderedDict()
        self._by_id: dict[str, Key] = {}
        self._revocations = 0

    async def find(self, secret: str) -> Key | None:
        """The key that *secret* is, None if there is none."""
        hash_ = hash_secret(secret)
        if (key := self._by_hash.get(hash_)) is not None:
            self._by_hash.move_to_end(hash_)
            return key
        revocations = self._revocations
        key = await self._store.by_hash(hash_)
        self._keep(key, revocations)
        return key

    async def by_id(self, key_id: str) -> Key | None:
        """The key that a stream token was made from, None once it is revoked."""
        if (key := self._by_id.get(key_id)) is not None:
            return key
        revocations = self._revocations
        key = await self._store.get(key_id)
        self._keep(key, revocations)
        return key

    def forget(self, key_id: str) -> None:
        """*key_id* has been revoked."""
        self._revocations += 1
        if (key := self._by_id.pop(key_id, None)) is not None:
            self._by_hash.pop(key.hash, None)

    def feed(self, page: Page) -> None:
        """Learn from the log what was revoked elsewhere."""
        for event in page.events:
            if event.type == REVOKED:
                self.forget(json.loads(event.data)["key_id"])

    def _keep(self, key: Key | None, revocations: int) -> None:
        if key is None or revocations != self._revocations:
            return
        self._by_hash[key.hash] = key
        self._by_id[key.id] = key
        if len(self._by_hash) > self._capacity:
            _, dropped = self._by_hash.popitem(last=False)
            self._by_id.pop(dropped.id, None)
