"""A database from a backup: a new epoch, and nothing else is touched."""

import asyncio
from pathlib import Path

import pytest

from gateway.errors import StorageUnavailable
from gateway.storage.database import Database, Transaction
from gateway.storage.engines import database_of
from gateway.storage.engines.sqlite import DatabaseInUse
from gateway.storage.moves import Move, keep_move
from gateway.storage.restoring import RestoreRefused, restored
from tests.builders import NOON, HandClock
from tests.storage.arrange import Stores


async def test_cursors_from_before_are_of_another_log_and_what_is_owed_stays_owed(url: str, clock: HandClock) -> None:
    async with database_of(url, clock=clock) as database:
        stores = Stores.over(database, clock)
        subscription = await stores.subscribe()
        owed = await stores.owed(subscription, events=3)
        await stores.settle(owed[0])
        await stores.fail(owed[1], due_at=NOON)
        before, place = await stores.log.position(), await stores.fanout.place()
        still = await stores.due(subscription)
    done = await restored(url)
    assert (done.former_epoch, done.head, done.owed, done.had_moved_to) == (before.epoch, before.head, 2, None)
    async with database_of(url, clock=clock) as database:
        stores = Stores.over(database, clock)
        after = await stores.log.position()
        assert after.epoch == done.epoch != before.epoch
        assert (after.head, after.earliest) == (before.head, before.earliest)
        assert after.read(before.write(before.head)) is None, "a cursor from before is none of this log"
        assert after.read(after.write(after.head)) == after.head
        assert await stores.fanout.place() == place
        assert await stores.due(subscription) == still
        [event] = await stores.publish()
        assert event.cursor == before.head + 1


async def test_each_restore_is_an_epoch_of_its_own(url: str) -> None:
    first, second = await restored(url), await restored(url)
    assert first.epoch == second.former_epoch != second.epoch


async def _mark(database: Database, move: Move) -> None:
    async def work(transaction: Transaction) -> None:
        await keep_move(transaction.connection, move)

    await database.write(work)


async def test_one_that_had_moved_can_be_served_again_as_a_log_of_its_own(url: str) -> None:
    async with database_of(url) as database:
        await _mark(database, Move(token="t", is_source=True, other="postgresql://elsewhere/db", is_whole=True))
    with pytest.raises(StorageUnavailable, match="moved to postgresql://elsewhere/db"):
        await database_of(url).__aenter__()
    assert (await restored(url)).had_moved_to == "postgresql://elsewhere/db"
    async with database_of(url):
        pass


async def test_one_that_was_copied_to_stays_known_as_whole(url: str) -> None:
    async with database_of(url) as database:
        await _mark(database, Move(token="t", is_source=False, other="sqlite:///old.db", is_whole=True))
    assert (await restored(url)).had_moved_to is None
    async with database_of(url):
        pass


async def test_half_a_copy_is_not_to_be_served_like_this_either(url: str) -> None:
    async with database_of(url) as database:
        epoch = (await Stores.over(database, HandClock()).log.position()).epoch
        await _mark(database, Move(token="t", is_source=False, other="sqlite:///old.db"))
    with pytest.raises(RestoreRefused, match="half a copy"):
        await restored(url)
    async with database_of(url, whole=False) as database:
        assert (await Stores.over(database, HandClock()).log.position()).epoch == epoch


async def test_one_that_is_served_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.storage.engines.postgres.sessions.CLOSING_SECONDS", 0.3)
    async with database_of(url) as database:
        before = await Stores.over(database, HandClock()).log.position()
        with pytest.raises((DatabaseInUse, RestoreRefused), match=r"stop (the other|all of them) first"):
            await restored(url)
        assert await Stores.over(database, HandClock()).log.position() == before


def test_no_database_is_made_by_restoring_it(tmp_path: Path) -> None:
    with (
        asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner,
        pytest.raises(RestoreRefused, match="There is no database"),
    ):
        runner.run(restored(f"sqlite:///{tmp_path}/nowhere.db"))
    assert not list(tmp_path.iterdir())


async def test_a_server_that_is_away_is_said_to_be() -> None:
    with pytest.raises(StorageUnavailable, match="cannot be opened"):
        await restored("postgresql://postgres@127.0.0.1:1/gateway")
