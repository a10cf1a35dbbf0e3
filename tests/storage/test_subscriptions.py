"""Subscriptions in SQL: what is kept, what is told, who sees them, and which interest was in force when."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from gateway.errors import Conflict
from gateway.events import Cursor
from gateway.filters import Filter
from gateway.ports.fanout import FanoutPlace
from gateway.subscriptions import Subscription, paused, resumed
from tests.builders import NOON
from tests.storage.arrange import Stores, a_subscription
from webhooks.deliveries import DeliveryStatus
from webhooks.endpoints import Ordering, Payload, Status
from webhooks.signing import Secret, Signature

BOOKS = frozenset({"books"})
START = FanoutPlace(cursor=Cursor(0))
UPDATED = "gateway.subscription.updated"


def with_types(*types: str) -> Any:
    return lambda subscription: replace(subscription, filter=Filter(types=frozenset(types)))


async def test_a_subscription_is_read_as_it_was_created(stores: Stores) -> None:
    created = await stores.subscribe(
        libraries={"books", "films"},
        filter=Filter(
            library_ids=BOOKS, types=frozenset({"document.*", "custom"}), expression='event.data.priority == "high"'
        ),
        description="für Bücher",
        headers={"x-token": "s3cret"},
        signature="v1a",
        ordering=Ordering.LIBRARY,
        payload=Payload.CLOUDEVENTS,
        max_in_flight=3,
        max_per_second=2.5,
        timeout_seconds=7.0,
        retry_schedule=(1.0, 2.5),
        metadata={"team": ["a", {"b": None}]},
        secrets=(
            Secret(key=b"a" * 32, expires_at=NOON + timedelta(days=1, microseconds=1)),
            Secret(key=b"b" * 32, signature=Signature.V1A),
        ),
        status=Status.DISABLED,
        disabled_reason="gone",
        idle=timedelta(seconds=5),
        idle_since=NOON,
    )
    assert await stores.subscriptions.get(created.id) == created


async def test_it_gets_what_comes_after_the_notice_of_its_creation(stores: Stores) -> None:
    await stores.publish()
    created = await stores.subscribe()
    [notice] = await stores.notices()
    assert (notice.type, notice.cursor) == ("gateway.subscription.created", created.created_cursor) == (notice.type, 2)
    [interest] = await stores.subscriptions.interests(Cursor(0))
    assert (interest.subscription_id, interest.since) == (created.id, created.created_cursor)


async def test_a_notice_says_what_changed_but_no_secret(stores: Stores) -> None:
    await stores.subscribe(
        id="sub_1",
        libraries={"books"},
        filter=Filter(library_ids=BOOKS, types=frozenset({"b", "a"}), expression="true"),
        description="mine",
        url="https://user.example/secret-path",
        headers={"authorization": "Bearer s3cret"},
    )
    [notice] = await stores.notices()
    assert notice.audience == BOOKS
    assert msgspec.json.decode(notice.data) == {
        "subscription_id": "sub_1",
        "status": "active",
        "disabled_reason": None,
        "library_ids": ["books"],
        "types": ["a", "b"],
        "filter": "true",
        "description": "mine",
    }


async def test_one_more_than_a_key_may_have_is_not_stored(stores: Stores) -> None:
    for _ in range(2):
        assert await stores.subscriptions.create(a_subscription(created_by="key_1"), at_most=2)
    assert await stores.subscriptions.create(a_subscription(created_by="key_1"), at_most=2) is None
    assert await stores.subscriptions.create(a_subscription(created_by="key_2"), at_most=2)
    assert len(await stores.notices()) == 3


# --- changes ---------------------------------------------------------------------------------------------------------


async def test_a_change_is_made_of_what_is_there_now_and_told(stores: Stores) -> None:
    created = await stores.subscribe(description="one")
    for _ in range(2):
        await stores.subscriptions.change(
            created.id, lambda now: replace(now, description=now.description + " more"), UPDATED
        )
    changed = await stores.subscriptions.get(created.id)
    assert changed == replace(created, description="one more more")
    assert [notice.type for notice in await stores.notices()] == ["gateway.subscription.created", UPDATED, UPDATED]


async def test_a_change_to_the_same_changes_and_tells_nothing(stores: Stores) -> None:
    created = await stores.subscribe()
    assert await stores.subscriptions.change(created.id, replace, UPDATED) == created
    assert len(await stores.notices()) == 1


async def test_what_a_change_raises_leaves_nothing_behind(stores: Stores) -> None:
    created = await stores.subscribe()

    def refuse(_: Subscription) -> Subscription:
        raise Conflict("no")

    with pytest.raises(Conflict):
        await stores.subscriptions.change(created.id, refuse, UPDATED)
    assert await stores.subscriptions.get(created.id) == created
    assert len(await stores.notices()) == 1


async def test_an_unknown_subscription_can_be_neither_read_nor_changed_nor_deleted(stores: Stores) -> None:
    assert await stores.subscriptions.get("sub_9") is None
    assert await stores.subscriptions.change("sub_9", with_types("a"), UPDATED) is None
    assert not await stores.subscriptions.delete("sub_9")
    assert await stores.notices() == []


# --- interests -------------------------------------------------------------------------------------------------------


async def types_at(stores: Stores, cursor: int) -> set[str]:
    [interest] = await stores.subscriptions.interests(Cursor(cursor))
    return set(interest.filter.types or ())


async def test_each_event_finds_the_filter_of_its_time(stores: Stores) -> None:
    created = await stores.subscribe(filter=Filter(types=frozenset({"a"})))  # told at 1
    await stores.subscriptions.change(created.id, with_types("b"), UPDATED)  # 2
    await stores.subscriptions.change(created.id, lambda now: replace(now, description="x"), UPDATED)  # 3
    await stores.subscriptions.change(created.id, with_types("c"), UPDATED)  # 4
    assert [await types_at(stores, cursor) for cursor in range(6)] == [{"a"}, {"a"}, {"b"}, {"b"}, {"c"}, {"c"}]


async def test_filters_that_the_fanout_has_passed_are_forgotten_with_the_next_change(stores: Stores) -> None:
    created = await stores.subscribe(filter=Filter(types=frozenset({"a"})))
    await stores.subscriptions.change(created.id, with_types("b"), UPDATED)
    assert await stores.fanout.advance(START, FanoutPlace(cursor=Cursor(2)), []) is not None
    await stores.subscriptions.change(created.id, with_types("c"), UPDATED)
    assert [await types_at(stores, cursor) for cursor in range(5)] == [{"b"}, {"b"}, {"b"}, {"c"}, {"c"}]


async def test_paused_subscriptions_keep_collecting(stores: Stores) -> None:
    created = await stores.subscribe(libraries={"books"})
    await stores.subscriptions.change(created.id, lambda now: paused(now, NOON), UPDATED)
    [interest] = await stores.subscriptions.interests(Cursor(9))
    assert interest.libraries == BOOKS


# --- who sees them ---------------------------------------------------------------------------------------------------


async def listed(stores: Stores, libraries: frozenset[str] | None, limit: int = 50) -> list[list[str]]:
    pages, before = [], None
    while True:
        page = await stores.subscriptions.list(libraries=libraries, limit=limit, before=before)
        pages.append([subscription.id for subscription in page.rows])
        if (before := page.more) is None:
            return pages


async def test_subscriptions_are_listed_newest_first_to_those_who_may_see_them(stores: Stores) -> None:
    for number, libraries in enumerate([None, {"books"}, {"books", "films"}, set[str](), {"films"}]):
        await stores.subscribe(id=f"sub_{number}", libraries=libraries)
    assert await listed(stores, None, limit=2) == [["sub_4", "sub_3"], ["sub_2", "sub_1"], ["sub_0"]]
    assert await listed(stores, BOOKS) == [["sub_3", "sub_1"]]
    assert await listed(stores, BOOKS | {"films"}, limit=2) == [["sub_4", "sub_3"], ["sub_2", "sub_1"]]
    assert await listed(stores, frozenset({"news"})) == [["sub_3"]]


async def test_a_page_of_subscriptions_is_cut_by_size_but_never_empty(stores: Stores) -> None:
    for number in range(3):
        await stores.subscribe(id=f"sub_{number}", metadata={"pad": "x" * 5_000_000})
    assert await listed(stores, None) == [["sub_2"], ["sub_1"], ["sub_0"]]


# --- deletion --------------------------------------------------------------------------------------------------------


async def test_a_deleted_subscription_is_gone_and_told_of(stores: Stores) -> None:
    created = await stores.subscribe(libraries={"books"}, description="mine")
    assert await stores.subscriptions.delete(created.id)
    assert await stores.subscriptions.get(created.id) is None
    assert await stores.deliveries.endpoint(created.id) is None
    assert await stores.subscriptions.interests(Cursor(0)) == []
    notice = (await stores.notices())[-1]
    assert (notice.type, notice.audience) == ("gateway.subscription.deleted", BOOKS)
    assert not await stores.subscriptions.delete(created.id)


async def test_what_a_deleted_subscription_owed_is_cancelled_in_small_batches(stores: Stores) -> None:
    created, other = await stores.subscribe(), await stores.subscribe()
    delivered, *owed = await stores.owed(created, other, events=6)
    await stores.settle(delivered)
    await stores.subscriptions.delete(created.id)
    assert [await stores.subscriptions.cancel_orphans(2) for _ in range(4)] == [2, 2, 1, 0]
    record = await stores.desk.get(owed[0].id)
    assert record is not None
    assert (record.status, record.reason) == (DeliveryStatus.CANCELLED, "subscription_deleted")
    assert record.settled_at == NOON
    assert await stores.status(delivered) is DeliveryStatus.DELIVERED
    assert len(await stores.due(other)) == 6


async def test_deliveries_that_a_lagging_fanout_adds_to_a_deleted_subscription_are_cancelled_too(
    stores: Stores,
) -> None:
    created = await stores.subscribe()
    [event] = await stores.publish()
    await stores.subscriptions.delete(created.id)
    assert await stores.subscriptions.cancel_orphans(10) == 0
    assert await stores.fanout.advance(START, FanoutPlace(cursor=event.cursor), [(event, [created.id])]) is not None
    assert await stores.subscriptions.cancel_orphans(10) == 1
    assert (
        await stores.fanout.advance(FanoutPlace(cursor=event.cursor), FanoutPlace(cursor=Cursor(event.cursor + 1)), [])
        is not None
    )
    assert await stores.subscriptions.cancel_orphans(10) == 0


async def test_resuming_is_told_as_such(stores: Stores) -> None:
    created = await stores.subscribe()
    await stores.subscriptions.change(created.id, lambda now: paused(now, NOON), UPDATED)
    changed = await stores.subscriptions.change(
        created.id, lambda now: resumed(now, NOON + timedelta(hours=1)), "gateway.subscription.resumed"
    )
    assert changed is not None
    assert changed.idle == timedelta(hours=1)
    told = [msgspec.json.decode(notice.data)["status"] for notice in await stores.notices()]
    assert told == ["active", "paused", "active"]
