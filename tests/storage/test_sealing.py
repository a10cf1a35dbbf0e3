"""Secrets at rest: nothing of them is in the file, and keys can be added, changed and never lost by accident."""

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text

from gateway.errors import StorageUnavailable
from gateway.events import Cursor
from gateway.inprocess.embedded import open_engine
from gateway.storage.engines import database_of
from gateway.storage.sealing import PLAIN, Seal, prepare
from gateway.subscriptions import Subscription
from tests.builders import NOON, HandClock
from tests.storage.arrange import Stores, a_subscription
from webhooks.signing import Secret, Signature

OLD, NEW = Fernet.generate_key().decode(), "a passphrase, not a key"
SECRETS = (
    Secret(key=b"the first secret of them all...."),
    Secret(key=b"an Ed25519 seed, of 32 bytes....", signature=Signature.V1A, expires_at=NOON),
)
HEADERS = {"authorization": "Bearer of-the-receiver", "x-plain": "shown-to-nobody"}
PRIVATE = [
    *(secret.text.partition("_")[2].encode() for secret in SECRETS),
    *(value.encode() for value in HEADERS.values()),
]


class Opened:
    """A database opened with *keys*, as it is after a start; closed at the end."""

    def __init__(self, path: Path, *keys: str, seal: Seal | None = None) -> None:
        self._clock = HandClock()
        self._database = database_of(f"sqlite:///{path}", clock=self._clock, seal=seal or Seal(keys))

    async def __aenter__(self) -> Stores:
        return Stores.over(await self._database.__aenter__(), self._clock)

    async def __aexit__(self, *_: object) -> None:
        await self._database.__aexit__()


async def subscribe(stores: Stores) -> Subscription:
    return await stores.subscribe(secrets=SECRETS, headers=HEADERS)


async def all_is_well(stores: Stores, *subscriptions: Subscription, signing_key: bytes | None = None) -> None:
    """Whoever reads *subscriptions*, finds their secrets."""
    listed = await stores.subscriptions.list(libraries=None, limit=500, before=None)
    assert listed.rows == tuple(sorted(subscriptions, key=lambda each: each.id, reverse=True))
    for subscription in subscriptions:
        assert await stores.subscriptions.get(subscription.id) == subscription
        found = await stores.deliveries.endpoint(subscription.id)
        assert found is not None
        assert (found[0].secrets, found[0].headers) == (SECRETS, HEADERS)
    if signing_key is not None:
        assert await stores.keys.signing_key() == signing_key


def raw(path: Path) -> bytes:
    """Every byte that is on disk."""
    files = [path, path.with_name(path.name + "-wal")]
    return b"".join(file.read_bytes() for file in files if file.exists())


def found_in(content: bytes, private: Sequence[bytes] = PRIVATE) -> list[bytes]:
    return [each for each in private if each in content]


# --- what is in the file ---------------------------------------------------------------------------------------------


async def test_without_a_key_secrets_are_there_for_whoever_reads_the_file(path: Path) -> None:
    """That is what the others are measured by: the same search finds nothing there."""
    async with Opened(path) as stores:
        await subscribe(stores)
        assert found_in(raw(path)) == PRIVATE


@pytest.mark.parametrize("key", [OLD, NEW], ids=["a Fernet key", "a passphrase"])
async def test_with_a_key_nothing_secret_is_in_the_file(path: Path, key: str) -> None:
    async with Opened(path, key) as stores:
        subscription = await subscribe(stores)
        signing_key = await stores.keys.signing_key()
        await all_is_well(stores, subscription, signing_key=signing_key)
        assert found_in(raw(path), [*PRIVATE, signing_key, key.encode()]) == []
    async with Opened(path, key) as stores:
        await all_is_well(stores, subscription, signing_key=signing_key)
        changed = await stores.subscriptions.change(
            subscription.id, lambda now: a_subscription(id=now.id, headers={"x": "another-value"}), "gateway.test.a"
        )
        assert changed is not None
        assert changed.headers == {"x": "another-value"}
    assert found_in(raw(path), [*PRIVATE, b"another-value", signing_key]) == []


async def test_the_same_secret_twice_looks_like_two(path: Path) -> None:
    async with Opened(path, OLD) as stores:
        await subscribe(stores)
        await subscribe(stores)
        async with stores.database.reading() as connection:
            sealed = (await connection.execute(text("SELECT secrets FROM subscriptions"))).scalars().all()
    assert len(set(sealed)) == 2


# --- keys that come and go -------------------------------------------------------------------------------------------


async def test_turned_on_it_seals_what_was_there_and_leaves_nothing_behind(path: Path) -> None:
    async with Opened(path) as stores:
        subscriptions = [await subscribe(stores) for _ in range(40)]
        signing_key = await stores.keys.signing_key()
    assert found_in(raw(path), [*PRIVATE, signing_key]) == [*PRIVATE, signing_key]
    async with Opened(path, OLD) as stores:
        await all_is_well(stores, *subscriptions, signing_key=signing_key)
        assert found_in(raw(path), [*PRIVATE, signing_key]) == []


async def test_a_new_first_key_seals_everything_anew_so_that_the_old_one_can_go(path: Path) -> None:
    async with Opened(path, OLD) as stores:
        subscriptions = [await subscribe(stores) for _ in range(3)]
        signing_key = await stores.keys.signing_key()
    for keys in ([OLD, NEW], [NEW, OLD], [NEW]):
        async with Opened(path, *keys) as stores:
            await all_is_well(stores, *subscriptions, signing_key=signing_key)
            subscriptions.append(await subscribe(stores))
    with pytest.raises(StorageUnavailable):
        async with Opened(path, OLD):
            pass


async def test_more_rows_than_are_sealed_at_once_are_all_sealed(path: Path) -> None:
    async with Opened(path, OLD) as stores:
        for _ in range(7):
            await subscribe(stores)
        await stores.keys.signing_key()
        both = Seal([NEW, OLD])
        await stores.database.write(lambda transaction: prepare(transaction.connection, both, rows_at_once=3))
        async with stores.database.reading() as connection:
            rows = (await connection.execute(text("SELECT secrets, headers FROM subscriptions"))).all()
            values = (await connection.execute(text("SELECT value FROM vault"))).all()
    assert (len(rows), len(values)) == (7, 2)
    assert all(value.startswith(both.mark) for row in (*rows, *values) for value in row)


async def test_what_is_sealed_with_the_first_key_already_is_left_alone(path: Path) -> None:
    async with Opened(path, OLD) as stores:
        await subscribe(stores)
    before = raw(path)
    async with Opened(path, OLD):
        pass
    assert raw(path) == before


# --- wrong ones ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ([], "are encrypted: set GATEWAY_SECRET_KEY to the keys that it was last run with"),
        ([NEW], "No key in GATEWAY_SECRET_KEY opens the secrets in this database: list the one that it was last"),
    ],
    ids=["none", "another"],
)
async def test_a_key_that_does_not_fit_stops_the_start_and_harms_nothing(
    path: Path, keys: list[str], words: str
) -> None:
    async with Opened(path, OLD):
        pass  # it need hold no secret yet
    for _ in range(2):
        with pytest.raises(StorageUnavailable, match=words) as refused:
            async with Opened(path, *keys):
                pass
        assert "\n" not in str(refused.value)
        assert NEW not in str(refused.value)
    async with Opened(path, OLD) as stores:
        await all_is_well(stores, await subscribe(stores))


async def test_a_value_that_no_key_opens_is_not_taken_for_a_secret(path: Path) -> None:
    """As another process may write it that was given other keys."""
    async with Opened(path, OLD) as stores:
        subscription = await subscribe(stores)
        strange = Seal([NEW]).seal(b"[]")
        await stores.database.write(
            lambda transaction: transaction.connection.execute(
                text("UPDATE subscriptions SET secrets = :strange"), {"strange": strange}
            )
        )
        with pytest.raises(StorageUnavailable, match="not in GATEWAY_SECRET_KEY"):
            await stores.subscriptions.get(subscription.id)
        with pytest.raises(StorageUnavailable, match="not in GATEWAY_SECRET_KEY"):
            await stores.deliveries.endpoint(subscription.id)


async def test_who_reads_no_secret_needs_no_key(path: Path) -> None:
    async with Opened(path, OLD) as stores:
        await stores.publish()
    async with open_engine(f"sqlite:///{path}") as engine:
        assert len((await engine.handlers.log.read(Cursor(0))).events) == 1


# --- cut short -------------------------------------------------------------------------------------------------------


KILLED = """
import asyncio, os, sys
from gateway.storage.engines import database_of
from gateway.storage.sealing import Seal
from sqlalchemy import text

class Doomed(Seal):
    left = int(sys.argv[3])

    def seal(self, value):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), 9)
        return super().seal(value)

asyncio.run(database_of(f"sqlite:///{sys.argv[1]}", seal=Doomed(sys.argv[2].split("|"))).__aenter__())
"""


@pytest.mark.parametrize("first_keys", [[], [OLD]], ids=["plain", "sealed"])
@pytest.mark.parametrize("after", [1, 2, 9, 13])
async def test_killed_in_the_middle_of_sealing_it_is_as_before(path: Path, first_keys: list[str], after: int) -> None:
    async with Opened(path, *first_keys) as stores:
        subscriptions = [await subscribe(stores) for _ in range(6)]
        signing_key = await stores.keys.signing_key()
    keys = [NEW, *first_keys]
    doomed = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, str(path), "|".join(keys), str(after))
    assert await doomed.wait() == -signal.SIGKILL
    async with Opened(path, *first_keys) as stores:
        await all_is_well(stores, *subscriptions, signing_key=signing_key)
    async with Opened(path, *keys) as stores:
        await all_is_well(stores, *subscriptions, signing_key=signing_key)
    async with Opened(path, NEW) as stores:
        await all_is_well(stores, *subscriptions, signing_key=signing_key)


# --- the seal by itself ----------------------------------------------------------------------------------------------


def test_without_a_key_nothing_is_changed() -> None:
    assert PLAIN.seal(b"[]") == PLAIN.open(b"[]") == b"[]"


def test_a_passphrase_makes_the_same_key_every_time() -> None:
    assert Seal([NEW]).open(Seal([NEW]).seal(b"x")) == b"x"


@pytest.mark.parametrize("key", ["k" * 16, "ü" * 16, "A" * 43 + "+", "A" * 44, "A" * 43])
def test_whatever_is_no_fernet_key_is_a_passphrase(key: str) -> None:
    assert Seal([key, OLD]).open(Seal([key]).seal(b"x")) == b"x"


def test_a_seal_shows_no_key() -> None:
    assert OLD not in repr(Seal([OLD]))
