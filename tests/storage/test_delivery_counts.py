"""Counts of deliveries by status, whoever changes them: the same as counting all of them, after each thing done."""

import asyncio
import random
from collections import Counter

import pytest
from sqlalchemy import delete, func, select

from gateway.ports.desk import RedeliverQuery
from gateway.storage.database import Transaction
from gateway.storage.tables import deliveries, delivery_counts
from gateway.subscriptions import Subscription
from tests.builders import NOON, a_draft
from tests.storage.arrange import Stores, a_settlement, an_attempt
from webhooks.deliveries import DeliveryStatus
from webhooks.verdicts import Dead, Delivered, Reason, Retry

STATUSES = [status.value for status in DeliveryStatus]


async def kept(stores: Stores) -> dict[tuple[str, str], int]:
    async with stores.database.reading() as connection:
        rows = (await connection.execute(select(delivery_counts))).all()
    return {
        (row.subscription_id, status): getattr(row, status)
        for row in rows
        for status in STATUSES
        if getattr(row, status)
    }


async def counted(stores: Stores) -> dict[tuple[str, str], int]:
    by = (deliveries.c.subscription_id, deliveries.c.status)
    async with stores.database.reading() as connection:
        rows = (await connection.execute(select(*by, func.count()).group_by(*by))).all()
    return {(id_, status): count for id_, status, count in rows}


async def some(stores: Stores, subscription: Subscription, status: str) -> str | None:
    wanted = select(deliveries.c.id).where(
        deliveries.c.subscription_id == subscription.id, deliveries.c.status == status
    )
    async with stores.database.reading() as connection:
        found: str | None = await connection.scalar(wanted.order_by(func.random()).limit(1))
    return found


async def settle_some(stores: Stores, subscription: Subscription, chance: random.Random) -> None:
    verdicts = (Delivered(), Dead(Reason.EXHAUSTED), Retry(NOON))
    batch = [
        a_settlement(each, chance.choice(verdicts), attempt=an_attempt(each.attempt_count + 1))
        for each in await stores.due(subscription, limit=chance.randint(1, 6))
    ]
    await stores.deliveries.settle(batch)
    if chance.random() < 0.3:
        await stores.deliveries.settle(batch)  # its commit broke, as far as the settler knows


async def steer_some(stores: Stores, subscription: Subscription, chance: random.Random) -> None:
    desk = stores.desk
    if pending := await some(stores, subscription, "pending"):
        await desk.cancel(pending, now=NOON)
    if settled := await some(stores, subscription, chance.choice(["dead", "cancelled"])):
        await desk.retry(settled, now=NOON)
    if dead := await some(stores, subscription, "dead"):
        await desk.forget(dead)


async def redeliver_some(stores: Stores, subscription: Subscription, chance: random.Random) -> None:
    replay = await stores.desk.redeliver(RedeliverQuery(libraries=None, subscription_id=subscription.id), now=NOON)
    if chance.random() < 0.5:
        await stores.desk.stop_replay(replay.id)


async def drop_some(stores: Stores, subscription: Subscription, chance: random.Random) -> None:
    """As retention will."""

    async def work(transaction: Transaction) -> None:
        oldest = select(deliveries.c.id).order_by(deliveries.c.id).limit(chance.randint(1, 4))
        await transaction.connection.execute(delete(deliveries).where(deliveries.c.id.in_(oldest)))

    await stores.database.write(work)


async def test_they_are_exact_whatever_is_done(stores: Stores) -> None:
    chance = random.Random(20)
    subscriptions = [await stores.subscribe() for _ in range(3)]
    seen: Counter[str] = Counter()
    for _ in range(40):
        subscription = chance.choice(subscriptions)
        await stores.owed(subscription, *chance.sample(subscriptions, 1), events=chance.randint(1, 4))
        await chance.choice([settle_some, settle_some, steer_some, redeliver_some, drop_some])(
            stores, subscription, chance
        )
        assert await kept(stores) == await counted(stores)
        seen.update({status for _, status in await counted(stores)})
    assert set(seen) == set(STATUSES)
    await stores.subscriptions.delete(subscriptions[0].id)
    while await stores.subscriptions.cancel_orphans(3):
        assert await kept(stores) == await counted(stores)


async def test_what_is_undone_is_not_counted(stores: Stores) -> None:
    subscription = await stores.subscribe()
    await stores.owed(subscription, events=2)

    async def work(transaction: Transaction) -> None:
        await transaction.connection.execute(delete(deliveries))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await stores.database.write(work)
    assert await kept(stores) == {(subscription.id, "pending"): 2}


async def test_they_are_exact_when_many_change_them_at_once(stores: Stores) -> None:
    chance = random.Random(21)
    owners = [await stores.subscribe() for _ in range(3)]

    async def settle_all(owner: Subscription) -> None:
        for each in await stores.due(owner):
            await stores.settle(each, chance.choice((Delivered(), Dead(Reason.EXHAUSTED))))

    for _ in range(3):
        await stores.owed(*owners, events=4)
        more = await stores.publish(*(a_draft() for _ in range(4)))
        await asyncio.gather(stores.owe(more, *reversed(owners)), *map(settle_all, owners))
    assert await kept(stores) == await counted(stores)
    assert sum((await counted(stores)).values()) == 3 * 3 * 8
