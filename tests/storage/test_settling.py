"""What settling does beyond the contract of delivery stores: notices, disabling, and statements."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import text

from gateway.subscriptions import disabled, paused, resumed
from tests.builders import NOON, a_draft
from tests.storage.arrange import Stores, a_settlement, an_attempt
from tests.storage.listening import listening
from webhooks.deliveries import DeliveryStatus, Failure
from webhooks.endpoints import Health, Status
from webhooks.verdicts import Dead, Delivered, Reason, Retry

LATER = NOON + timedelta(minutes=5)
BOOKS = frozenset({"books"})


async def told(stores: Stores) -> list[tuple[str, dict[str, Any]]]:
    """The notices but for those of creation."""
    return [
        (notice.type.removeprefix("gateway."), msgspec.json.decode(notice.data))
        for notice in await stores.notices()
        if notice.type != "gateway.subscription.created"
    ]


async def test_an_attempt_is_kept_as_it_went(stores: Stores) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    attempt = an_attempt(
        1,
        status_code=None,
        connect=timedelta(microseconds=1),
        first_byte=timedelta(seconds=2),
        error="connection refused",
        failure=Failure.UNREACHABLE,
        request_headers={"webhook-id": "a"},
        response_headers={"x": "ü"},
        response_body=b"\x00\xff",
    )
    await stores.settle(delivery, Retry(LATER), attempt=attempt)
    assert await stores.desk.attempts(delivery.id) == (attempt,)


async def test_an_answer_that_is_no_text_is_kept_as_near_as_can_be(stores: Stores) -> None:
    subscription = await stores.subscribe()
    first, second = await stores.owed(subscription, events=2)
    odd = an_attempt(1, error="bad \ud800 \0", response_headers={"x\udcff": "\udcfe\0"})
    await stores.deliveries.settle([a_settlement(first, attempt=odd), a_settlement(second)])
    [kept] = await stores.desk.attempts(first.id)
    assert (kept.error, kept.response_headers) == ("bad ? \ufffd", {"x?": "?\ufffd"})
    assert await stores.status(second) is DeliveryStatus.DELIVERED


async def test_a_batch_that_is_stored_again_changes_nothing(stores: Stores) -> None:
    subscription = await stores.subscribe()
    first, second, third = await stores.owed(subscription, events=3)
    batch = [
        a_settlement(first),
        a_settlement(second, Retry(LATER)),
        a_settlement(third, Dead(Reason.EXHAUSTED), attempt=an_attempt(status_code=500)),
    ]
    await stores.deliveries.settle(batch)
    before = [await stores.desk.get(delivery.id) for delivery in (first, second, third)]
    await stores.deliveries.settle(batch)
    assert [await stores.desk.get(delivery.id) for delivery in (first, second, third)] == before
    assert len(await stores.desk.attempts(second.id)) == 1
    assert len(await told(stores)) == 1


async def test_an_attempt_of_a_cancelled_delivery_counts_so_that_the_next_has_a_number_of_its_own(
    stores: Stores,
) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    await stores.desk.cancel(delivery.id, now=NOON)
    await stores.settle(delivery)
    assert await stores.status(delivery) is DeliveryStatus.CANCELLED
    await stores.desk.retry(delivery.id, now=NOON)
    [again] = await stores.due(subscription)
    await stores.settle(again)
    assert [attempt.number for attempt in await stores.desk.attempts(delivery.id)] == [1, 2]


async def test_a_schedule_begins_with_its_first_attempt_and_what_its_endpoint_had_been_idle(stores: Stores) -> None:
    subscription = await stores.subscribe(idle=timedelta(hours=1))
    [delivery] = await stores.owed(subscription)
    await stores.subscriptions.change(subscription.id, lambda now: paused(now, NOON), "gateway.subscription.updated")
    stores.clock.advance(seconds=60)
    await stores.fail(delivery, due_at=NOON)
    [again] = await stores.due(subscription)
    assert (again.first_attempt_at, again.idle_before) == (NOON, timedelta(hours=1, minutes=1))
    stores.clock.advance(seconds=60)
    await stores.settle(again, Retry(NOON), attempt=msgspec.structs.replace(an_attempt(2), started_at=LATER))
    [third] = await stores.due(subscription)
    assert (third.first_attempt_at, third.idle_before) == (again.first_attempt_at, again.idle_before)


# --- what is told ----------------------------------------------------------------------------------------------------


async def test_a_dead_delivery_is_told_with_its_last_straw(stores: Stores) -> None:
    subscription = await stores.subscribe(libraries={"books"})
    [delivery] = await stores.owed(subscription)
    attempt = an_attempt(1, status_code=None, error="timed out after 15 s", failure=Failure.TIMEOUT)
    await stores.settle(delivery, Dead(Reason.EXHAUSTED), attempt=attempt)
    assert await told(stores) == [
        (
            "delivery.dead",
            {
                "delivery_id": delivery.id,
                "subscription_id": subscription.id,
                "event_id": delivery.event_id,
                "event_type": "document.added",
                "event_library_id": "books",
                "reason": "exhausted",
                "attempt_count": 1,
                "last_status_code": None,
                "last_error": "timed out after 15 s",
            },
        )
    ]
    assert (await stores.notices())[-1].audience == BOOKS


async def test_a_dead_delivery_of_a_gateways_own_event_is_not_told(stores: Stores) -> None:
    subscription = await stores.subscribe()
    [notice] = await stores.notices()
    await stores.owe([notice], subscription)
    await stores.kill(*await stores.due(subscription))
    assert await told(stores) == []


async def test_a_delivery_that_dies_after_its_subscription_was_deleted_is_not_told(stores: Stores) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    await stores.subscriptions.delete(subscription.id)
    await stores.kill(delivery)
    assert await stores.status(delivery) is DeliveryStatus.DEAD
    assert [type_ for type_, _ in await told(stores)] == ["subscription.deleted"]


async def test_a_delivery_given_up_without_an_attempt_keeps_its_count(stores: Stores) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    await stores.fail(delivery, due_at=NOON)
    [again] = await stores.due(subscription)
    await stores.settle(again, Dead(Reason.EXPIRED), attempt=None)
    [(_, data)] = await told(stores)
    assert (data["reason"], data["attempt_count"], data["last_error"]) == ("expired", 1, None)


async def test_an_endpoint_is_disabled_once_with_its_reason(stores: Stores) -> None:
    subscription = await stores.subscribe()
    first, second = await stores.owed(subscription, events=2)
    await stores.deliveries.settle(
        [
            a_settlement(
                delivery, Dead(Reason.GONE, disable="gone"), disable="gone", attempt=an_attempt(status_code=410)
            )
            for delivery in (first, second)
        ]
    )
    disabled = await stores.subscriptions.get(subscription.id)
    assert disabled is not None
    assert (disabled.status, disabled.disabled_reason, disabled.idle_since) == (Status.DISABLED, "gone", NOON)
    assert [type_ for type_, _ in await told(stores)] == ["subscription.disabled", "delivery.dead", "delivery.dead"]
    await stores.settle(second, Retry(LATER), disable="failing")
    assert await stores.subscriptions.get(subscription.id) == disabled


async def test_a_failing_endpoint_is_told_of(stores: Stores) -> None:
    subscription = await stores.subscribe(libraries={"books"})
    [delivery] = await stores.owed(subscription)
    await stores.settle(delivery, Retry(LATER), tell_failing=True)
    [(type_, data)] = await told(stores)
    assert (type_, data["subscription_id"], data["status"]) == ("subscription.failing", subscription.id, "active")


async def test_the_health_of_a_deleted_endpoint_is_not_kept(stores: Stores) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    await stores.subscriptions.delete(subscription.id)
    await stores.settle(delivery, health=Health(consecutive_failures=3))
    async with stores.database.reading() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM lanes"))).scalar_one() == 0


# --- cost ------------------------------------------------------------------------------------------------------------


async def test_settling_a_large_batch_takes_as_many_statements_as_a_small_one(stores: Stores) -> None:
    subscriptions = [await stores.subscribe() for _ in range(20)]
    events = await stores.publish(*(a_draft() for _ in range(20)))
    await stores.owe(events, *subscriptions)
    batch = []
    for number, subscription in enumerate(subscriptions):
        for delivery in await stores.due(subscription):
            verdict = (Delivered(), Retry(LATER), Dead(Reason.EXHAUSTED))[number % 3]
            batch.append(a_settlement(delivery, verdict))
    with listening(stores.database) as seen:
        await stores.deliveries.settle(batch)
    # Owners, deliveries, update, attempts, tally, lanes; then the log's: head, events, head.
    assert len([statement for statement, _ in seen if not statement.startswith(("BEGIN", "SET LOCAL"))]) == 9
    assert len(batch) == 400


async def health_of(stores: Stores, subscription_id: str) -> Health:
    found = await stores.deliveries.endpoint(subscription_id)
    assert found is not None
    return found[1]


BAD = Health(failing_since=NOON, failing_told=True, consecutive_failures=9, unreachable=9, held_until=LATER)


async def test_what_is_known_of_a_receiver_is_forgotten_when_its_subscription_is_enabled_again(stores: Stores) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    await stores.settle(delivery, Retry(LATER), health=BAD)
    await stores.subscriptions.change(subscription.id, lambda now: disabled(now, "failing", NOON), "gateway.test.a")
    assert await health_of(stores, subscription.id) == BAD
    await stores.subscriptions.change(subscription.id, lambda now: resumed(now, LATER), "gateway.test.b")
    assert await health_of(stores, subscription.id) == Health()


async def test_what_is_known_of_a_receiver_is_forgotten_when_its_subscription_leads_elsewhere(stores: Stores) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    await stores.settle(delivery, Retry(LATER), health=BAD)
    await stores.subscriptions.change(subscription.id, lambda now: replace(now, description="x"), "gateway.test.a")
    await stores.subscriptions.change(subscription.id, lambda now: paused(now, NOON), "gateway.test.b")
    await stores.subscriptions.change(subscription.id, lambda now: resumed(now, NOON), "gateway.test.c")
    assert await health_of(stores, subscription.id) == BAD
    elsewhere = "https://elsewhere.example/"
    await stores.subscriptions.change(subscription.id, lambda now: replace(now, url=elsewhere), "gateway.test.d")
    assert await health_of(stores, subscription.id) == Health()


async def test_time_paused_leads_a_failing_receiver_no_nearer_to_being_disabled(stores: Stores) -> None:
    subscription = await stores.subscribe()
    [delivery] = await stores.owed(subscription)
    await stores.settle(delivery, Retry(LATER), health=BAD)
    await stores.subscriptions.change(subscription.id, lambda now: paused(now, NOON), "gateway.test.a")
    await stores.subscriptions.change(subscription.id, lambda now: resumed(now, LATER), "gateway.test.b")
    assert await health_of(stores, subscription.id) == msgspec.structs.replace(BAD, failing_since=LATER)
