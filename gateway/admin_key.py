"""The first key: without one nobody could make another."""

from typeid import TypeID

from gateway.keys import Key, Scope, hash_secret, new_secret
from gateway.ports.keys import KeyStore
from gateway.times import Clock

GIVEN = "GATEWAY_ADMIN_KEY"
"""The name of the key that the environment gives."""
MADE = "first admin key"


async def ensure_admin_key(store: KeyStore, given: str | None, clock: Clock) -> str | None:
    """See to it that there is an admin key: the *given* one, or, if there is no key at all, a new one.

    The key that was given at an earlier start and is not any more, because another is, is revoked: who changes the
    variable wants the old one gone. Answers the key that was made, to be shown once; None if none was.
    """
    if given is None:
        if (await store.list(limit=1, before=None)).rows:
            return None
        made = new_secret()
        await store.add(_admin(MADE, made, clock))
        return made
    if await store.by_hash(hash_secret(given)) is None:
        await _revoke_given(store)
        await store.add(_admin(GIVEN, given, clock))
    return None


async def _revoke_given(store: KeyStore) -> None:
    before: str | None = None
    while True:
        page = await store.list(limit=500, before=before)
        for key in page.rows:
            if key.name == GIVEN and Scope.ADMIN in key.scopes:
                await store.revoke(key.id)
        if (before := page.more) is None:
            return


def _admin(name: str, secret: str, clock: Clock) -> Key:
    return Key(
        id=str(TypeID("key")),
        name=name,
        scopes=frozenset({Scope.ADMIN}),
        libraries=None,
        created_at=clock(),
        hash=hash_secret(secret),
    )
