"""A PostgreSQL database as a `Database`: transactions side by side, done again where others got in the way.

write ─▶ [ begin · work · commit ] ─▶ announced, in the order of the log
              ▲      │ a deadlock, a lost connection: nothing is written yet, so it is done again, a few times
              └──────┘ after COMMIT was sent: nobody knows, so it is not
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date, datetime
from typing import Self, TypeVar

import asyncpg
from sqlalchemy import text
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from gateway.events import Draft, LoggedEvent
from gateway.storage import migrations
from gateway.storage.connection import Connection
from gateway.storage.database import Database, Transaction, Work, unavailable
from gateway.storage.engines.postgres import days as attempts_by_day
from gateway.storage.engines.postgres.appending import append_at_once
from gateway.storage.engines.postgres.commits import InOrder
from gateway.storage.engines.postgres.connection import DIALECT, FLOATS, PostgresConnection
from gateway.storage.engines.postgres.duty import on_duty
from gateway.storage.engines.postgres.nodes import PostgresNodes
from gateway.storage.engines.postgres.pool import Pool
from gateway.storage.engines.postgres.server import (
    FAULTS,
    READERS,
    WORK_SECONDS,
    WRITERS,
    as_alchemy,
    connect,
    may_be_repeated,
)
from gateway.storage.engines.postgres.url import check_url
from gateway.storage.engines.statements import Statements
from gateway.storage.sealing import PLAIN, Seal
from gateway.times import Clock
from gateway.times import now as system_clock

T = TypeVar("T")

ATTEMPTS = 5
"""Within a second or so: whoever waits is better told to come again than left waiting."""
END_SECONDS = 0.25
"""For the writes under way when it is closed: they may wait for other processes, and this one is to end."""


class PostgresDatabase(Database):
    """Shared with other processes."""

    def __init__(
        self,
        url: str,
        *,
        clock: Clock = system_clock,
        seal: Seal | None = PLAIN,
        whole: bool = True,
        work_seconds: float = WORK_SECONDS,
    ) -> None:
        super().__init__(clock=clock, seal=seal, whole=whole)
        check_url(url)
        self._url = url
        self._work_seconds = work_seconds
        self._commits = InOrder(self._announce)
        self.statements = Statements(DIALECT, FLOATS)
        self.nodes = PostgresNodes(self, url)
        self.append_at_once = self._append_at_once

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            try:
                await self._prepare()
            except FAULTS as error:
                raise unavailable("opened", error) from error
            self._writers = Pool(lambda: connect(self._url, WRITERS))
            self._readers = Pool(lambda: connect(self._url, READERS))
            for pool in (self._writers, self._readers):
                stack.push_async_callback(pool.close)
            stack.push_async_callback(self._settled, END_SECONDS)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        try:
            async with asyncio.timeout(self._work_seconds), self._readers.one() as raw:
                yield PostgresConnection(raw, self.statements, begin="BEGIN")
        except FAULTS as error:
            raise unavailable("read", error) from error

    @asynccontextmanager
    async def on_duty(self) -> AsyncIterator[asyncio.Event]:
        async with on_duty(self._url) as is_over:
            yield is_over

    async def make_days(self, days: Iterable[date]) -> None:
        async def work(transaction: Transaction) -> None:
            await attempts_by_day.make_days(transaction.connection, days)

        await self.write(work)

    async def turn_days(self, *, before: datetime) -> datetime:
        now = self.clock()

        async def work(transaction: Transaction) -> None:
            await attempts_by_day.turn_days(transaction.connection, before=before, now=now)

        await self.write(work, durable=False)
        return attempts_by_day.row_by_row_until(before, now)

    async def _append_at_once(self, drafts: Sequence[Draft]) -> Sequence[LoggedEvent]:
        return await self._to_its_end(self._append(drafts))

    async def _append(self, drafts: Sequence[Draft]) -> list[LoggedEvent]:
        try:
            async with asyncio.timeout(self._work_seconds), self._writers.one() as raw:
                try:
                    appended = await append_at_once(raw, self.statements, drafts, now=self.clock())
                except FAULTS as error:
                    if raw.is_closed():
                        raise ConnectionResetError("the server has closed the connection") from error
                    raise
        except FAULTS as error:
            if isinstance(error, asyncpg.UniqueViolationError) or may_be_repeated(error):
                return []
            raise unavailable("written to", error) from error
        # Whatever this process has put before them has taken its turn by now: they had to wait for its commit.
        self._commits.end(self._commits.take(appended), committed=True)
        return appended

    async def _write(self, work: Work[T], *, durable: bool, can_wait: bool) -> T:
        try:
            try:
                return await self._transact(work, durable=durable)
            except FAULTS as error:
                if not may_be_repeated(error):
                    raise
            return await _repeating()(self._transact, work, durable=durable)
        except FAULTS as error:
            raise unavailable("written to", error) from error

    async def _transact(self, work: Work[T], *, durable: bool) -> T:
        """Once.

        Raises:
            StorageUnavailable: the commit broke, and nobody knows whether before or after it was done.
        """
        async with asyncio.timeout(self._work_seconds), self._writers.one() as raw:
            begin = _BEGIN if durable else _BEGIN_WHAT_MAY_BE_LOST
            transaction = Transaction(PostgresConnection(raw, self.statements, begin=begin), self.seal)
            try:
                result = await work(transaction)
            except FAULTS as error:
                if raw.is_closed():
                    raise ConnectionResetError("the server has closed the connection") from error
                raise
            if raw.is_closed():  # then no COMMIT can have been sent, and it may be done again
                raise ConnectionResetError("the server has closed the connection")
            turn = self._commits.take(transaction.appended)
            try:
                await self._commit(raw, _COMMIT if durable or not transaction.appended else _COMMIT_FOR_GOOD)
            except FAULTS as error:
                self._commits.end(turn, committed=False)
                raise unavailable("written to", error) from error
            except BaseException:
                self._commits.end(turn, committed=False)
                raise
            self._commits.end(turn, committed=True)
            return result

    async def _commit(self, raw: asyncpg.Connection, statement: str) -> None:
        if not raw.is_in_transaction():  # nothing was done in it
            return
        self.statements.tell(statement)
        if (done := await raw.execute(statement)) != "COMMIT":
            raise asyncpg.InterfaceError(f"the server answered {done} where it was to commit")

    async def _prepare(self) -> None:
        """One process at a time; the others find it done."""
        async with as_alchemy(self._url).begin() as connection:
            await connection.execute(_NO_HURRY)
            await connection.execute(_ONE_AT_A_TIME)
            await connection.run_sync(migrations.upgrade)
            await connection.run_sync(migrations.in_byte_order)
            await attempts_by_day.make_days(connection, attempts_by_day.ahead(self.clock()))
            await self._admit(connection)


_BEGIN = "BEGIN"
_BEGIN_WHAT_MAY_BE_LOST = "BEGIN; SET LOCAL synchronous_commit = off"
_COMMIT = "COMMIT"
_COMMIT_FOR_GOOD = "SET LOCAL synchronous_commit = on; COMMIT"
"""Events are shown to readers at once: their places must not be given out anew after a crash."""
_NO_HURRY = text("SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true)")
_ONE_AT_A_TIME = text(
    "SELECT pg_advisory_xact_lock(hashtextextended('arrw-gateway.migrations.' || current_schema(), 0))"
)


def _repeating() -> AsyncRetrying:
    """For work that was done once, in vain."""
    return AsyncRetrying(
        retry=retry_if_exception(may_be_repeated),
        stop=stop_after_attempt(ATTEMPTS - 1),
        wait=wait_random_exponential(multiplier=0.05, max=0.5),
        reraise=True,
    )
