"""What only PostgreSQL brings: others at the same tables, a server that goes away, and who is on duty."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import select, text, update

from gateway.errors import StorageUnavailable
from gateway.events import Cursor, Page
from gateway.ports.fanout import FanoutPlace
from gateway.ports.log import IdTaken, Receipt
from gateway.storage.database import Database, Transaction
from gateway.storage.engines import database_of
from gateway.storage.engines.postgres.commits import InOrder
from gateway.storage.engines.postgres.database import PostgresDatabase
from gateway.storage.log import SqlEventLog, append
from gateway.storage.tables import cursors, log
from tests.builders import NOON, HandClock, a_draft, an_event
from tests.servers.postgres import PostgresServer, postgres_server
from tests.storage.arrange import Stores, a_subscription
from tests.storage.listening import listening
from tests.storage.sessions import is_waited_for, session


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture
async def neighbour(url: str, clock: HandClock) -> AsyncIterator[Stores]:
    """The stores of another process."""
    async with database_of(url, clock=clock) as database:
        yield Stores.over(database, clock)


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """One that may be killed."""
    with postgres_server() as server:
        yield server


def the_cursors(receipts: Sequence[Any]) -> list[int]:
    return [answer[0][0].cursor for answer in receipts if isinstance(answer[0], tuple)]


# --- opening ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["postgresql://", "postgresql://localhost", "postgres:///", "mysql://u:p@h/d", "x"])
def test_what_names_no_database_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected .*postgresql://"):
        database_of(url)


async def test_processes_that_start_together_find_one_database(postgres: PostgresServer) -> None:
    url = await asyncio.to_thread(postgres.create)

    async def start() -> str:
        async with database_of(url) as database:
            await Stores.over(database, HandClock()).keys.signing_key()
            return (await SqlEventLog(database).position()).epoch

    assert len(set(await asyncio.gather(*(start() for _ in range(4))))) == 1


async def test_a_server_that_is_not_there_says_so_at_the_start() -> None:
    with pytest.raises(StorageUnavailable, match="cannot be opened"):
        async with database_of("postgresql://postgres@127.0.0.1:1/gateway"):
            pass


async def test_all_text_is_ordered_by_its_bytes(database: Database) -> None:
    by_language = text("""
        SELECT attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i') AND relname NOT LIKE 'alembic%'
          AND attcollation NOT IN (0, '"C"'::regcollation)
    """)
    async with database.reading() as connection:
        assert not (await connection.execute(by_language)).all()


# --- others at the same tables ---------------------------------------------------------------------------------------


async def test_cursors_stay_contiguous_whoever_publishes(stores: Stores, neighbour: Stores) -> None:
    answers = await asyncio.gather(*(one.log.append([[a_draft()]]) for _ in range(10) for one in (stores, neighbour)))
    assert sorted(the_cursors(answers)) == list(range(1, 21))


async def test_the_same_event_published_twice_at_once_is_one(stores: Stores, neighbour: Stores) -> None:
    for number in range(10):
        draft = a_draft(id=f"own:{number}")
        first, second = await asyncio.gather(stores.log.append([[draft]]), neighbour.log.append([[draft]]))
        assert the_cursors([first, second]) == [number + 1] * 2
        assert isinstance(first[0], tuple)
        assert isinstance(second[0], tuple)
        assert first[0][0].duplicate is not second[0][0].duplicate


async def test_an_id_that_another_process_is_just_taking_is_taken(stores: Stores, neighbour: Stores, url: str) -> None:
    taken, may_end = asyncio.Event(), asyncio.Event()

    async def slowly(transaction: Transaction) -> None:
        await append(transaction, [[a_draft(id="own", data=b'{"a":1}')]], now=NOON)
        taken.set()
        await may_end.wait()

    ahead = asyncio.create_task(neighbour.database.write(slowly))
    await taken.wait()
    behind = asyncio.create_task(stores.log.append([[a_draft(id="own")], [a_draft()]]))
    await is_waited_for(url)
    may_end.set()
    await ahead
    refused, other = await behind
    assert isinstance(refused, IdTaken)
    assert isinstance(other, tuple)
    assert other[0].cursor == 2


async def test_new_events_are_one_trip_to_the_server(stores: Stores) -> None:
    batches = [[a_draft(), a_draft(id="own")], [], [a_draft()]]
    with listening(stores.database) as sent:
        answers = await stores.log.append(batches)
    assert len(sent) == 1
    assert [[receipt.cursor for receipt in answer] for answer in answers if isinstance(answer, tuple)] == [
        [1, 2],
        [],
        [3],
    ]


async def test_they_are_told_of_once_they_are_committed(stores: Stores) -> None:
    told: list[Page] = []
    stores.database.on_commit(told.append)
    for count in (2, 1):
        await stores.log.append([[a_draft() for _ in range(count)]])
    assert [(page.after, page.last) for page in told] == [(0, 2), (2, 3)]
    assert [event.body for page in told for event in page.events] == [
        event.body for event in (await stores.log.read(Cursor(0))).events
    ]


async def test_an_event_that_is_there_because_nobody_knew_is_no_duplicate(stores: Stores) -> None:
    draft = a_draft()
    [first], [again] = [await stores.log.append([[draft]]) for _ in range(2)]
    assert first == again == (Receipt(draft.id, Cursor(1), duplicate=False),)
    assert (await stores.log.position()).head == 1


async def test_an_append_whose_connection_is_cut_is_done_once(stores: Stores, url: str) -> None:
    async with session(url) as other:
        holding = other.transaction()
        await holding.start()
        await other.execute("SELECT FROM log FOR UPDATE")
        appending = asyncio.create_task(stores.log.append([[a_draft(), a_draft(id="own")]]))
        await is_waited_for(url)
        await other.execute(_CUT_WHO_WAITS)
        await is_waited_for(url)
        await holding.rollback()
    [answer] = await appending
    assert isinstance(answer, tuple)
    assert [(receipt.cursor, receipt.duplicate) for receipt in answer] == [(1, False), (2, False)]
    assert (await stores.log.position()).head == 2


_CUT_WHO_WAITS = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def test_a_limit_of_subscriptions_holds_for_all_processes_together(stores: Stores, neighbour: Stores) -> None:
    from_both = [one.subscriptions for one in (stores, neighbour) for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(store.create(a_subscription(), at_most=3)) for store in from_both]
    assert len([task for task in tasks if task.result() is not None]) == 3


async def test_only_one_fan_out_moves_the_cursor(stores: Stores, neighbour: Stores) -> None:
    subscription = await stores.subscribe()
    [logged] = await stores.publish()
    start, wanted = await stores.fanout.place(), [(logged, [subscription.id])]
    to = FanoutPlace(cursor=logged.cursor)
    moved = await asyncio.gather(*(one.fanout.advance(start, to, wanted) for one in (stores, neighbour)))
    assert [answer is None for answer in moved].count(True) == 1
    assert len(await stores.due(subscription)) == 1


async def test_what_is_settled_while_orphans_are_cancelled_hides_none_of_them(stores: Stores, url: str) -> None:
    subscription = await stores.subscribe()
    first, *rest = await stores.owed(subscription, events=3)
    await stores.subscriptions.delete(subscription.id)
    await stores.fanout.advance(await stores.fanout.place(), FanoutPlace(cursor=(await stores.log.position()).head), [])
    async with session(url) as other:
        settling = other.transaction()
        await settling.start()
        await other.execute("UPDATE deliveries SET status = 'delivered' WHERE id = $1", first.id)
        cancelling = asyncio.create_task(stores.subscriptions.cancel_orphans(2))
        await is_waited_for(url)
        await settling.commit()
        cancelled = await cancelling
    while more := await stores.subscriptions.cancel_orphans(2):
        cancelled += more
    assert cancelled == 2
    assert {await stores.status(delivery) for delivery in rest} == {"cancelled"}


async def test_who_gets_into_each_others_way_is_done_again(stores: Stores, neighbour: Stores) -> None:
    both_hold = asyncio.Barrier(2)
    began: list[str] = []

    async def lock(transaction: Transaction, name: str) -> None:
        statement = update(log).values(earliest=1) if name == "log" else update(cursors).values(cursor=0)
        await transaction.connection.execute(statement)

    async def one(transaction: Transaction, first: str, second: str) -> None:
        began.append(first)
        await lock(transaction, first)
        if len(began) <= 2:
            await both_hold.wait()
        await lock(transaction, second)

    await asyncio.gather(
        stores.database.write(lambda transaction: one(transaction, "log", "cursors")),
        neighbour.database.write(lambda transaction: one(transaction, "cursors", "log")),
    )
    assert len(began) == 3


def test_commits_are_told_of_in_the_order_of_the_log_whichever_ends_first() -> None:
    told: list[int] = []
    commits = InOrder(lambda events: told.extend(event.cursor for event in events))

    def a_turn(cursor: int) -> Any:
        return commits.take([an_event(cursor=cursor)])

    first, second, third, fourth = map(a_turn, (1, 2, 3, 4))
    commits.end(second, committed=True)
    commits.end(third, committed=False)
    assert told == []
    commits.end(first, committed=True)
    assert told == [1, 2]
    commits.end(fourth, committed=True)
    assert told == [1, 2, 4]


# --- what a crash may take back --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("durable", "appends", "may_be_lost"), [(True, False, False), (False, False, True), (False, True, False)]
)
async def test_only_what_can_be_derived_again_and_nobody_has_seen_may_be_lost(
    stores: Stores, *, durable: bool, appends: bool, may_be_lost: bool
) -> None:
    async def work(transaction: Transaction) -> None:
        await transaction.connection.execute(update(cursors).values(cursor=0))
        if appends:
            await append(transaction, [[a_draft()]], now=NOON)

    with listening(stores.database) as sent:
        await stores.database.write(work, durable=durable)
    settings = re.findall(r"synchronous_commit = (\w+)", "; ".join(statement for statement, _ in sent))
    assert ((settings or ["on"])[-1] == "off") is may_be_lost


# --- a server that goes away -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("asks_on", [False, True])
async def test_work_whose_connection_is_cut_is_done_again(stores: Stores, url: str, *, asks_on: bool) -> None:
    tries = 0

    async def work(transaction: Transaction) -> None:
        nonlocal tries
        tries += 1
        await append(transaction, [[a_draft()]], now=NOON)
        if tries == 1:
            mine = await transaction.connection.scalar(text("SELECT pg_backend_pid()"))
            async with session(url) as other:
                await other.execute("SELECT pg_terminate_backend($1, 5000)", mine)
            if asks_on:
                await transaction.connection.scalar(text("SELECT 1"))

    await stores.database.write(work)
    assert tries == 2
    assert (await stores.log.position()).head == 1


async def test_it_is_unavailable_while_the_server_is_down_and_well_when_it_is_back(own_server: PostgresServer) -> None:
    url = await asyncio.to_thread(own_server.create)
    async with database_of(url) as database:
        kept = SqlEventLog(database)
        await kept.append([[a_draft()]])
        await asyncio.to_thread(own_server.kill)
        with pytest.raises(StorageUnavailable):
            await kept.append([[a_draft()]])
        with pytest.raises(StorageUnavailable):
            await kept.position()
        await asyncio.to_thread(own_server.start)
        for _ in range(20):  # more than there are connections
            await kept.position()
        await kept.append([[a_draft()]])
        assert [event.cursor for event in (await kept.read(Cursor(0))).events] == [1, 2]


async def test_connections_of_a_server_that_was_started_anew_are_not_handed_out(own_server: PostgresServer) -> None:
    url = await asyncio.to_thread(own_server.create)
    async with database_of(url) as database:
        await asyncio.gather(*(SqlEventLog(database).position() for _ in range(5)))
        await asyncio.to_thread(own_server.kill)
        await asyncio.to_thread(own_server.start)
        for _ in range(10):
            await SqlEventLog(database).position()


async def test_a_server_that_stands_still_holds_nobody_for_ever(own_server: PostgresServer) -> None:
    url = await asyncio.to_thread(own_server.create)
    async with PostgresDatabase(url, work_seconds=0.5) as database:
        kept = SqlEventLog(database)
        await kept.append([[a_draft()]])
        await asyncio.to_thread(own_server.freeze)
        try:
            with pytest.raises(StorageUnavailable):
                await kept.append([[a_draft()]])
            with pytest.raises(StorageUnavailable):
                await kept.position()
        finally:
            await asyncio.to_thread(own_server.thaw)
        await kept.append([[a_draft()]])


async def test_sessions_hold_up_others_for_a_while_at_most(database: Database) -> None:
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    asked = select(*(text(f"current_setting('{name}')") for name in names))

    async def work(transaction: Transaction) -> list[str]:
        return list((await transaction.connection.execute(asked)).one())

    async with database.reading() as connection:
        assert "0" not in (await connection.execute(asked)).one()
    assert "0" not in await database.write(work)


# --- who is on duty --------------------------------------------------------------------------------------------------


async def test_one_process_is_on_duty_and_another_takes_over(stores: Stores, neighbour: Stores) -> None:
    waiting: asyncio.Task[None]

    async def take_over() -> None:
        async with neighbour.database.on_duty() as is_over:
            assert not is_over.is_set()

    async with stores.database.on_duty() as is_over:
        waiting = asyncio.create_task(take_over())
        done, _ = await asyncio.wait([waiting], timeout=1.5)
        assert not done
        assert not is_over.is_set()
    await asyncio.wait_for(waiting, 10)


async def test_who_loses_its_session_is_told_that_its_duty_is_over(stores: Stores, url: str) -> None:
    async with stores.database.on_duty() as is_over:
        async with session(url) as other:
            await other.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        await asyncio.wait_for(is_over.wait(), 10)
    async with stores.database.on_duty() as is_over:
        assert not is_over.is_set()
