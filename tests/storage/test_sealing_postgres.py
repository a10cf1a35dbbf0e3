"""Secrets at rest in PostgreSQL too: what is read over the wire is what is stored, and others may be at work meanwhile.

What SQLite leaves behind in its files is in `test_sealing`.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import select, update

from gateway.errors import StorageUnavailable
from gateway.storage.database import Transaction
from gateway.storage.engines import database_of
from gateway.storage.sealing import Seal
from gateway.storage.tables import subscriptions, vault
from tests.builders import HandClock
from tests.storage.arrange import Stores
from tests.storage.sessions import is_waited_for
from tests.storage.test_sealing import NEW, OLD, PRIVATE, all_is_well, found_in, subscribe


@asynccontextmanager
async def opened(url: str, *keys: str) -> AsyncIterator[Stores]:
    clock = HandClock()
    async with database_of(url, clock=clock, seal=Seal(keys)) as database:
        yield Stores.over(database, clock)


async def stored(stores: Stores) -> bytes:
    """All that ought to be sealed, as it is."""
    async with stores.database.reading() as connection:
        rows: list[Sequence[bytes]] = [
            *(await connection.execute(select(subscriptions.c.headers, subscriptions.c.secrets))).all(),
            *(await connection.execute(select(vault.c.value))).all(),
        ]
    return b"\n".join(value for row in rows for value in row)


async def test_turned_on_it_seals_what_was_there(postgres_url: str) -> None:
    async with opened(postgres_url) as stores:
        before, signing_key = await subscribe(stores), await stores.keys.signing_key()
        assert signing_key in await stored(stores)
    async with opened(postgres_url, OLD) as stores:
        after = await subscribe(stores)
        assert found_in(await stored(stores), [*PRIVATE, signing_key]) == []
        await all_is_well(stores, before, after, signing_key=signing_key)


async def test_a_new_first_key_seals_everything_anew_so_that_the_old_one_can_go(postgres_url: str) -> None:
    async with opened(postgres_url, OLD) as stores:
        subscription, signing_key = await subscribe(stores), await stores.keys.signing_key()
    async with opened(postgres_url, NEW, OLD):
        pass
    async with opened(postgres_url, NEW) as stores:
        await all_is_well(stores, subscription, signing_key=signing_key)
    for keys in ([], [OLD]):
        with pytest.raises(StorageUnavailable):
            async with opened(postgres_url, *keys):
                pass


async def test_what_another_process_changes_meanwhile_stays_changed(postgres_url: str) -> None:
    async with opened(postgres_url) as stores:
        subscription = await subscribe(stores)

        async def open_beside() -> None:
            async with opened(postgres_url, OLD):
                pass

        async def change(transaction: Transaction) -> asyncio.Task[None]:
            changed = update(subscriptions).where(subscriptions.c.id == subscription.id).values(headers=b'{"a":"new"}')
            await transaction.connection.execute(changed)
            opening = asyncio.create_task(open_beside())
            await is_waited_for(postgres_url)
            return opening

        await (await stores.database.write(change))
    async with opened(postgres_url, OLD) as stores:
        found = await stores.subscriptions.get(subscription.id)
        assert found is not None
        assert found.headers == {"a": "new"}
