"""Pausing, disabling and resuming: the status, and how long a subscription was idle."""

from datetime import timedelta

from gateway.subscriptions import disabled, paused, resumed
from tests.builders import NOON
from tests.storage.arrange import a_subscription
from webhooks.endpoints import Status

HOUR = timedelta(hours=1)


def test_the_time_between_pausing_and_resuming_is_idle() -> None:
    subscription = a_subscription(idle=HOUR)
    subscription = resumed(paused(subscription, NOON), NOON + 2 * HOUR)
    assert (subscription.status, subscription.idle, subscription.idle_since) == (Status.ACTIVE, 3 * HOUR, None)


def test_going_from_paused_to_disabled_and_back_counts_idle_time_once() -> None:
    subscription = paused(a_subscription(), NOON)
    subscription = disabled(subscription, "gone", NOON + HOUR)
    assert (subscription.status, subscription.disabled_reason) == (Status.DISABLED, "gone")
    subscription = paused(subscription, NOON + 2 * HOUR)
    assert (subscription.status, subscription.disabled_reason) == (Status.PAUSED, None)
    assert resumed(subscription, NOON + 3 * HOUR).idle == 3 * HOUR


def test_pausing_again_or_resuming_an_active_one_changes_nothing() -> None:
    subscription = a_subscription()
    assert resumed(subscription, NOON) == subscription
    once = paused(subscription, NOON)
    assert paused(once, NOON + HOUR) == once


def test_a_disabled_one_keeps_its_first_reason() -> None:
    once = disabled(a_subscription(), "gone", NOON)
    assert disabled(once, "failing", NOON + HOUR) == once


def test_a_clock_that_ran_backwards_takes_no_idle_time_away() -> None:
    assert resumed(paused(a_subscription(idle=HOUR), NOON), NOON - HOUR).idle == HOUR
