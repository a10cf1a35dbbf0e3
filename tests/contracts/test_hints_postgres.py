"""Hints about lanes, from process to process over PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from gateway.bus.hints import MOST_WAITING, PostgresHints
from gateway.ports.nodes import HINTED_AT_ONCE, HINTS_CHANNEL, Hint
from tests.servers.postgres import PostgresServer


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.url("postgres")


@pytest.fixture
async def hints(url: str) -> AsyncIterator[PostgresHints]:
    async with PostgresHints(url) as hints:
        await hints.channel.listening.wait()
        yield hints


@pytest.fixture
async def far(url: str) -> AsyncIterator[PostgresHints]:
    """Those of another process."""
    async with PostgresHints(url) as hints:
        await hints.channel.listening.wait()
        yield hints


class Ear:
    def __init__(self, hints: PostgresHints) -> None:
        self.heard: list[Hint] = []
        self._news = asyncio.Event()
        hints.listen(self._hear)

    def _hear(self, hint: Hint) -> None:
        self.heard.append(hint)
        self._news.set()

    async def hears(self, enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not enough():
                self._news.clear()
                await self._news.wait()


async def test_another_process_hears_a_hint_and_who_says_it_does_not(hints: PostgresHints, far: PostgresHints) -> None:
    here, there = Ear(hints), Ear(far)
    hints.say("wake", ["sub_2", "sub_1"])
    hints.say("changed", ["sub_3"])
    await there.hears(lambda: len(there.heard) == 2)
    assert set(there.heard) == {
        Hint(kind="wake", endpoint_ids=("sub_1", "sub_2")),
        Hint(kind="changed", endpoint_ids=("sub_3",)),
    }
    far.say("wake", ["sub_4"])
    await here.hears(lambda: bool(here.heard))
    assert here.heard == [Hint(kind="wake", endpoint_ids=("sub_4",))]


async def test_many_are_said_in_several_messages(hints: PostgresHints, far: PostgresHints) -> None:
    there = Ear(far)
    ids = {f"sub_01jb00000000000000000{number:05}" for number in range(3 * HINTED_AT_ONCE)}
    hints.say("wake", ids)
    await there.hears(lambda: {id_ for hint in there.heard for id_ in hint.endpoint_ids} == ids)
    assert len(there.heard) == 3


async def test_more_than_can_wait_are_let_go(hints: PostgresHints, far: PostgresHints) -> None:
    there = Ear(far)
    hints.say("wake", (f"sub_{number}" for number in range(MOST_WAITING + 1)))
    hints.say("changed", ["sub_1"])
    await there.hears(lambda: bool(there.heard))
    assert [hint.kind for hint in there.heard] == ["changed"]


async def test_what_is_no_hint_is_passed_over(hints: PostgresHints, url: str) -> None:
    here = Ear(hints)
    connection = await asyncpg.connect(url)
    for message in ("", "{}", '{"kind": "sing", "endpoint_ids": []}'):
        await connection.execute("SELECT pg_notify($1, $2)", HINTS_CHANNEL, message)
    await connection.execute("SELECT pg_notify($1, $2)", HINTS_CHANNEL, '{"kind": "free", "endpoint_ids": ["a"]}')
    await connection.close()
    await here.hears(lambda: bool(here.heard))
    assert here.heard == [Hint(kind="free", endpoint_ids=("a",))]
