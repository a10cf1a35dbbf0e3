"""Keys in SQL, and the gateway's own signing key beside them."""

import secrets
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, select

from gateway.keys import Key, Scope
from gateway.listing import Listing
from gateway.storage import notices
from gateway.storage.database import Database, Transaction
from gateway.storage.dialects import insert_new
from gateway.storage.tables import keys, vault

_SIGNING_KEY = "stream_tokens"


class SqlKeyStore:
    """`gateway.ports.keys.KeyStore` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: Key) -> None:
        row = {
            "id": key.id,
            "name": key.name,
            "scopes": key.scopes,
            "libraries": key.libraries,
            "created_at": key.created_at,
            "hash": key.hash,
        }

        async def work(transaction: Transaction) -> None:
            # Processes that start together add the same first key.
            await transaction.connection.execute(insert_new(transaction.connection, keys), row)

        await self._database.write(work)

    async def by_hash(self, hash_: bytes) -> Key | None:
        return await self._one(keys.c.hash == hash_)

    async def get(self, key_id: str) -> Key | None:
        return await self._one(keys.c.id == key_id)

    async def list(self, *, limit: int, before: str | None) -> Listing[Key, str]:
        page = select(keys).order_by(keys.c.id.desc()).limit(limit + 1)
        if before is not None:
            page = page.where(keys.c.id < before)
        async with self._database.reading() as connection:
            found = tuple(map(_key, await connection.execute(page)))
        rows = found[:limit]
        return Listing(rows, rows[-1].id if len(found) > limit else None)

    async def revoke(self, key_id: str) -> bool:
        async def work(transaction: Transaction) -> bool:
            gone = await transaction.connection.execute(delete(keys).where(keys.c.id == key_id))
            if not gone.rowcount:
                return False
            await notices.tell(transaction, notices.key_revoked(key_id), now=self._database.clock())
            return True

        return await self._database.write(work)

    async def signing_key(self) -> bytes:
        kept = select(vault.c.value).where(vault.c.name == _SIGNING_KEY)
        async with self._database.reading() as connection:
            value: bytes | None = await connection.scalar(kept)
        if value is not None:
            return self._database.seal.open(value)

        async def work(transaction: Transaction) -> bytes:
            seal = self._database.seal
            made = {"name": _SIGNING_KEY, "value": seal.seal(secrets.token_bytes(32))}
            await transaction.connection.execute(insert_new(transaction.connection, vault), made)
            value: bytes = (await transaction.connection.execute(kept)).scalar_one()
            return seal.open(value)

        return await self._database.write(work)

    async def _one(self, condition: ColumnElement[bool]) -> Key | None:
        async with self._database.reading() as connection:
            row = (await connection.execute(select(keys).where(condition))).one_or_none()
        return None if row is None else _key(row)


def _key(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        scopes=frozenset(map(Scope, row.scopes)),
        libraries=row.libraries,
        created_at=row.created_at,
        hash=row.hash,
    )
