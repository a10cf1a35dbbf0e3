"""Keys in SQL."""

import asyncio
from typing import Any

import msgspec

from gateway.keys import Key, Scope, hash_secret
from tests.builders import NOON
from tests.storage.arrange import Stores


def a_key(number: int = 1, **fields: Any) -> Key:
    return Key(
        **{
            "id": f"key_{number:04}",
            "name": "a key",
            "scopes": frozenset({Scope.PUBLISH}),
            "libraries": None,
            "created_at": NOON,
            "hash": hash_secret(f"secret {number}"),
            **fields,
        }
    )


async def test_a_key_is_found_by_its_hash_and_by_its_id_as_it_was_added(stores: Stores) -> None:
    key = a_key(scopes=frozenset({Scope.STREAM, Scope.ADMIN}), libraries=frozenset({"books", "films"}))
    await stores.keys.add(key)
    assert await stores.keys.by_hash(key.hash) == await stores.keys.get(key.id) == key


async def test_a_key_confined_to_no_library_is_not_one_of_all(stores: Stores) -> None:
    await stores.keys.add(a_key(libraries=frozenset()))
    found = await stores.keys.get("key_0001")
    assert found is not None
    assert found.libraries == frozenset()


async def test_an_unknown_key_is_none(stores: Stores) -> None:
    assert await stores.keys.by_hash(b"?" * 32) is None
    assert await stores.keys.get("key_9") is None


async def test_keys_are_listed_newest_first_page_by_page(stores: Stores) -> None:
    for number in range(5):
        await stores.keys.add(a_key(number))
    pages, before = [], None
    while True:
        page = await stores.keys.list(limit=2, before=before)
        pages.append([key.id for key in page.rows])
        if (before := page.more) is None:
            break
    assert pages == [["key_0004", "key_0003"], ["key_0002", "key_0001"], ["key_0000"]]


async def test_a_full_last_page_of_keys_is_the_last(stores: Stores) -> None:
    for number in range(2):
        await stores.keys.add(a_key(number))
    assert (await stores.keys.list(limit=2, before=None)).more is None


async def test_a_revoked_key_is_gone_and_told_of_once(stores: Stores) -> None:
    key = a_key(libraries=frozenset({"books"}))
    await stores.keys.add(key)
    assert await stores.keys.revoke(key.id)
    assert not await stores.keys.revoke(key.id)
    assert await stores.keys.by_hash(key.hash) is None
    [notice] = await stores.notices()
    assert (notice.type, notice.library_id, notice.audience) == ("gateway.key.revoked", "gateway", None)
    assert msgspec.json.decode(notice.data) == {"key_id": key.id}


async def test_the_signing_key_is_made_once(stores: Stores) -> None:
    first, *others = await asyncio.gather(*(stores.keys.signing_key() for _ in range(3)))
    assert len(first) == 32
    assert others == [first, first]
    again = Stores.over(stores.database, stores.clock)
    assert await again.keys.signing_key() == await stores.keys.signing_key() == first
