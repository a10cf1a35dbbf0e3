"""Fills a database that no gateway has open, by the gateway's own stores, in large transactions: a log that is long
already, and deliveries that wait already. And says what became of these."""

import gc
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice

from typeid import TypeID

from gateway.bench.marks import TYPE, batch_json
from gateway.bench.roles.answering import Answer, answer_calls
from gateway.events import Draft, EventType
from gateway.filters import Filter
from gateway.intake import MAX_BATCH, read_events
from gateway.ports.fanout import FanoutPlace
from gateway.storage.database import Database
from gateway.storage.engines import database_of
from gateway.storage.fanout import SqlFanoutStore
from gateway.storage.log import SqlEventLog
from gateway.storage.rollups import SqlRollups
from gateway.storage.subscriptions import SqlSubscriptionStore
from gateway.subscriptions import Subscription
from webhooks.signing import Secret

EVENTS_AT_ONCE = 20_000
DELIVERIES_AT_ONCE = 20_000
ENVELOPE_BYTES = 90
"""What an event has beside its text, as it is published."""
MAKER = "key_bench"


async def lengthen(*, url: str, library: str, events: int, size: int) -> Answer:
    """Append *events* that no stream and no receiver of a measurement is to get."""
    data = b'{"text":"%b"}' % (b"x" * max(0, size - ENVELOPE_BYTES))
    async with database_of(url) as database:
        log = SqlEventLog(database)
        for first in range(0, events, EVENTS_AT_ONCE):
            numbers = range(first, min(first + EVENTS_AT_ONCE, events))
            # Ids rise with the log, as those that the gateway makes do.
            drafts = [
                Draft(id=f"{library}-{number:012d}", type=EventType(TYPE), library_id=library, data=data)
                for number in numbers
            ]
            await log.append([drafts])
        # Nobody wants them: the fan-out has passed them, as it would have.
        fanout = SqlFanoutStore(database)
        await fanout.advance(await fanout.place(), FanoutPlace(cursor=(await log.position()).head), ())
    return {}


async def subscribe(*, url: str, library: str, receivers: Sequence[str], in_flight: int) -> Answer:
    """The ids of a subscription to *library* for each URL of *receivers*."""
    async with database_of(url) as database:
        store = SqlSubscriptionStore(database)
        ids = [await _subscribe(store, library, receiver, in_flight) for receiver in receivers]
    return {"ids": ids}


async def owe(*, url: str, library: str, ids: Sequence[str], events: int, size: int) -> Answer:
    """Append *events*, and owe each of them to all subscriptions *ids*, as the fan-out does."""
    async with database_of(url) as database:
        await _append(SqlEventLog(database), library, events, size)
        await _fan_out(database, library, ids)
    return {}


async def books(*, url: str, ids: Sequence[str]) -> Answer:
    """Of each subscription how many deliveries are delivered, dead, and owed."""
    async with database_of(url) as database:
        store = SqlRollups(database)
        counts = [(await store.standing(one, since=datetime.now(UTC))).counts for one in ids]
    return {"books": [[one["delivered"], one["dead"], one["pending"]] for one in counts]}


async def _subscribe(store: SqlSubscriptionStore, library: str, receiver: str, in_flight: int) -> str:
    wanted = Subscription(
        id=str(TypeID("sub")),
        url=receiver,
        filter=Filter(library_ids=frozenset({library})),
        libraries=None,
        max_in_flight=in_flight,
        secrets=(Secret(key=os.urandom(32)),),
        created_at=datetime.now(UTC),
        created_by=MAKER,
    )
    await store.create(wanted)
    return wanted.id


async def _append(log: SqlEventLog, library: str, events: int, size: int) -> None:
    for first in range(0, events, MAX_BATCH):
        drafts, _ = read_events(batch_json(first, min(MAX_BATCH, events - first), 0.0, library, size))
        await log.append([drafts])


async def _fan_out(database: Database, library: str, ids: Sequence[str]) -> None:
    log, store = SqlEventLog(database), SqlFanoutStore(database)
    at_once = max(1, DELIVERIES_AT_ONCE // len(ids))
    while (page := await log.read((place := await store.place()).cursor)).events:
        events = iter(page.events)
        while some := list(islice(events, at_once)):
            wanted = [(event, ids) for event in some if event.library_id == library]
            made = await store.advance(place, FanoutPlace(cursor=some[-1].cursor), wanted)
            assert made is not None, "nobody else has this database open"  # noqa: S101 - that is how it is called
            place = await store.place()


if __name__ == "__main__":
    gc.set_threshold(1_000_000)  # there are hardly any cycles in what is made, and to look for them took a third
    answer_calls({"lengthen": lengthen, "subscribe": subscribe, "owe": owe, "books": books})
