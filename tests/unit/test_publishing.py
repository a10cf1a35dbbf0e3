"""Group commit: who shares a commit, and what a bad neighbour can do."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from gateway import publishing
from gateway.errors import Overloaded, StorageUnavailable
from gateway.events import Draft, EventType
from gateway.ports.log import Appended, IdTaken
from gateway.publishing import Publisher
from gateway.storage.memory import MemoryEventLog


def a_draft(id_: str, data: bytes = b"{}") -> Draft:
    return Draft(id=id_, type=EventType.CUSTOM, library_id="books", data=data, id_is_own=True)


class GatedLog(MemoryEventLog):
    """Appends when it is let, notes the groups, and refuses any group with an event named in `poison`."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[list[str]] = []
        self.poison: set[str] = set()
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def append(self, batches: Sequence[Sequence[Draft]]) -> list[Appended]:
        self.entered.set()
        await self.open.wait()
        ids = [draft.id for batch in batches for draft in batch]
        self.groups.append(ids)
        if self.poison & set(ids):
            raise StorageUnavailable("no")
        return await super().append(batches)


@asynccontextmanager
async def a_busy_publisher(log: GatedLog) -> AsyncIterator[Publisher]:
    """A publisher whose first commit is under way until the log is opened, so that what comes next has to wait."""
    async with Publisher(log) as publisher:
        log.open.clear()
        first = asyncio.ensure_future(publisher.publish([a_draft("first")]))
        await log.entered.wait()
        yield publisher
        log.open.set()
        await first


async def test_publishers_that_wait_share_the_next_commit_in_the_order_in_which_they_came() -> None:
    log = GatedLog()
    async with a_busy_publisher(log) as publisher:
        waiting = [asyncio.ensure_future(publisher.publish([a_draft(str(n))])) for n in range(50)]
        await asyncio.sleep(0)
        assert publisher.queue_size == 51
        log.open.set()
        receipts = await asyncio.gather(*waiting)
    assert log.groups == [["first"], [str(n) for n in range(50)]]
    assert [receipt[0].cursor for receipt in receipts if isinstance(receipt, tuple)] == list(range(2, 52))
    assert publisher.queue_size == 0


async def test_a_batch_that_the_log_refuses_harms_only_itself() -> None:
    log = GatedLog()
    log.poison = {"bad"}
    async with a_busy_publisher(log) as publisher:
        waiting = [asyncio.ensure_future(publisher.publish([a_draft(name)])) for name in ("good", "bad", "fine")]
        await asyncio.sleep(0)
        log.open.set()
        good, bad, fine = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(good, tuple)
    assert isinstance(fine, tuple)
    assert isinstance(bad, StorageUnavailable)
    assert await log.get("good")
    assert not await log.get("bad")


async def test_an_id_that_is_taken_is_told_to_its_publisher_alone() -> None:
    log = GatedLog()
    async with Publisher(log) as publisher:
        await publisher.publish([a_draft("one", b'{"a":1}')])
        taken, fine = await asyncio.gather(
            publisher.publish([a_draft("new"), a_draft("one", b'{"a":2}')]), publisher.publish([a_draft("two")])
        )
    assert taken == IdTaken(1, "one")
    assert isinstance(fine, tuple)
    assert not await log.get("new")


async def test_a_publisher_that_went_away_before_its_commit_is_not_stored() -> None:
    log = GatedLog()
    async with a_busy_publisher(log) as publisher:
        gone = asyncio.ensure_future(publisher.publish([a_draft("gone")]))
        stays = asyncio.ensure_future(publisher.publish([a_draft("stays")]))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        log.open.set()
        await stays
    assert log.groups[1] == ["stays"]


@pytest.mark.parametrize(
    ("waiting", "more"),
    [
        pytest.param(publishing.WAITING_EVENTS - 1, [a_draft("x")], id="events"),
        pytest.param(0, [a_draft(str(n), b"." * 2**20) for n in range(65)], id="bytes"),
    ],
)
async def test_beyond_its_bounds_the_queue_refuses_at_once_and_takes_nothing(waiting: int, more: list[Draft]) -> None:
    log = GatedLog()
    async with a_busy_publisher(log) as publisher:
        many = asyncio.ensure_future(publisher.publish([a_draft(f"w{n}") for n in range(waiting)]))
        await asyncio.sleep(0)
        size = publisher.queue_size
        with pytest.raises(Overloaded) as refusal:
            await publisher.publish(more)
        assert refusal.value.retry_after_seconds >= 1
        assert publisher.queue_size == size
        log.open.set()
        await many
    assert not await log.get(more[0].id)


async def test_what_was_taken_is_still_committed_at_the_end_and_nothing_more_is_taken() -> None:
    log = GatedLog()
    publisher = Publisher(log)
    await publisher.__aenter__()
    log.open.clear()
    taken = asyncio.ensure_future(publisher.publish([a_draft("taken")]))
    await log.entered.wait()
    ending = asyncio.ensure_future(publisher.__aexit__())
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await publisher.publish([a_draft("late")])
    log.open.set()
    await ending
    assert isinstance(await taken, tuple)


async def test_many_commits_at_the_end_are_each_given_their_time() -> None:
    class SlowDisk(MemoryEventLog):
        async def append(self, batches: Sequence[Sequence[Draft]]) -> list[Appended]:
            await asyncio.sleep(0.3)  # four of them are more than the end may take without one
            return await super().append(batches)

    async with Publisher(SlowDisk(), stop_seconds=1) as publisher:
        batches = [[a_draft(f"{number}:{n}") for n in range(publishing.GROUP_EVENTS)] for number in range(4)]
        waiting = [asyncio.ensure_future(publisher.publish(batch)) for batch in batches]
        await asyncio.sleep(0)
    assert all(isinstance(answer, tuple) for answer in await asyncio.gather(*waiting))


async def test_what_cannot_be_committed_in_time_at_the_end_is_told_to_come_again() -> None:
    log = GatedLog()
    log.open.clear()
    async with Publisher(log, stop_seconds=0.01) as publisher:
        publishing = [asyncio.ensure_future(publisher.publish([a_draft(name)])) for name in ("taken", "waits")]
        await log.entered.wait()
    answers = await asyncio.gather(*publishing, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Overloaded, Overloaded]
    assert log.groups == []


async def test_at_the_end_nobody_waits_for_what_nobody_waits_for() -> None:
    log = GatedLog()
    log.open.clear()
    async with asyncio.timeout(5), Publisher(log, stop_seconds=3_600) as publisher:
        gone = asyncio.ensure_future(publisher.publish([a_draft("gone")]))
        await log.entered.wait()
        gone.cancel()
        await asyncio.wait([gone])


async def test_an_error_that_nobody_foresaw_is_answered_and_the_publisher_goes_on() -> None:
    class BrokenOnce(MemoryEventLog):
        broken = True

        async def append(self, batches: Sequence[Sequence[Draft]]) -> list[Appended]:
            if self.broken:
                self.broken = False
                raise RuntimeError("surprise")
            return await super().append(batches)

    async with Publisher(BrokenOnce()) as publisher:
        with pytest.raises(StorageUnavailable):
            await publisher.publish([a_draft("1")])
        assert isinstance(await publisher.publish([a_draft("2")]), tuple)


async def test_nothing_to_publish_is_answered_without_a_commit() -> None:
    log = GatedLog()
    async with Publisher(log) as publisher:
        assert await publisher.publish([]) == ()
    assert log.groups == []
