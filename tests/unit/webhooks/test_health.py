"""The circuit, and how an endpoint fares from attempt to attempt."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.deliveries import Answer, an_attempt
from webhooks import circuit
from webhooks.circuit import Circuit
from webhooks.deliveries import Failure
from webhooks.endpoints import Health
from webhooks.health import Prognosis, examine
from webhooks.verdicts import Dead, Delivered, Reason, Retry, Verdict

NOW = datetime(2025, 10, 27, 6, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DISABLE_AFTER = timedelta(days=5)


def after(
    health: Health,
    answer: Answer,
    *,
    now: datetime = NOW,
    started_at: datetime | None = None,
    verdict: Verdict | None = None,
) -> Prognosis:
    if verdict is None:
        verdict = Delivered() if isinstance(answer, int) and answer < 300 else Retry(now + SECOND)
    attempt = an_attempt(answer, started_at=started_at or now)
    return examine(health, attempt, verdict, now=now, disable_after=DISABLE_AFTER)


def after_failures(count: int, failure: Failure = Failure.TIMEOUT) -> Health:
    health = Health()
    for _ in range(count):
        health = after(health, failure).health
    return health


def test_it_opens_at_the_tenth_failure_to_connect_or_time_out_in_a_row() -> None:
    assert circuit.state(after_failures(9), NOW) is Circuit.CLOSED
    opened = after_failures(10, Failure.UNREACHABLE)
    assert circuit.state(opened, NOW) is Circuit.OPEN
    assert opened.circuit_open_until == NOW + 10 * SECOND
    assert circuit.state(opened, NOW + 10 * SECOND) is Circuit.PROBING


@pytest.mark.parametrize("answer", [200, 404, 500, 503, Failure.PROTOCOL])
def test_any_answer_starts_the_count_anew(answer: Answer) -> None:
    health = after(after_failures(9), answer).health
    assert health.unreachable == 0
    assert circuit.state(after(health, Failure.TIMEOUT).health, NOW) is Circuit.CLOSED


def test_each_failed_probe_doubles_the_pause_up_to_ten_minutes() -> None:
    health, now, pauses = after_failures(10), NOW, []
    for _ in range(9):
        assert health.circuit_open_until is not None
        pauses.append((health.circuit_open_until - now).total_seconds())
        now = health.circuit_open_until
        health = after(health, Failure.TIMEOUT, now=now).health
    assert pauses == [10, 20, 40, 80, 160, 320, 600, 600, 600]


def test_a_probe_that_is_answered_closes_it_whatever_the_answer() -> None:
    health = after(after_failures(10), 500, now=NOW + 10 * SECOND).health
    assert circuit.state(health, NOW + 10 * SECOND) is Circuit.CLOSED
    assert (health.circuit_trips, health.unreachable) == (0, 0)


def test_attempts_that_began_before_it_opened_do_not_open_it_again() -> None:
    opened = after_failures(10)
    late = after(opened, Failure.TIMEOUT, started_at=NOW, now=NOW + 15 * SECOND).health
    assert late.circuit_open_until == opened.circuit_open_until
    assert late.circuit_trips == 1


def test_a_forbidden_address_says_nothing_about_the_circuit() -> None:
    health = after(after_failures(9), Failure.FORBIDDEN, verdict=Dead(Reason.FORBIDDEN_DESTINATION)).health
    assert health.unreachable == 9


@given(st.lists(st.sampled_from([Failure.TIMEOUT, Failure.UNREACHABLE, 500, 204]), max_size=60))
def test_it_is_never_open_unless_ten_in_a_row_failed_and_never_longer_than_ten_minutes(answers: list[Answer]) -> None:
    health, now, row = Health(), NOW, 0
    for answer in answers:
        now += SECOND * 700
        health = after(health, answer, now=now).health
        row = row + 1 if isinstance(answer, Failure) else 0
        assert (circuit.state(health, now) is Circuit.OPEN) == (row >= 10)
        if health.circuit_open_until is not None:
            assert health.circuit_open_until - now <= circuit.LONGEST_PAUSE


def test_one_good_answer_heals() -> None:
    ill = after_failures(5)
    assert ill.failing_since == NOW
    assert ill.consecutive_failures == 5
    assert after(ill, 204).health == Health()


def test_the_owner_is_told_once_at_half_of_the_way_and_then_it_is_disabled() -> None:
    health = after(Health(), 500).health
    just_before = after(health, 500, now=NOW + DISABLE_AFTER / 2 - SECOND)
    assert not just_before.tell_failing
    half_way = after(just_before.health, 500, now=NOW + DISABLE_AFTER / 2)
    assert half_way.tell_failing
    assert half_way.disable is None
    later = after(half_way.health, 500, now=NOW + DISABLE_AFTER - SECOND)
    assert not later.tell_failing
    assert later.disable is None
    assert after(later.health, 500, now=NOW + DISABLE_AFTER).disable == "failing"


def test_after_a_good_answer_the_way_to_being_disabled_begins_anew() -> None:
    health = after(Health(), 500).health
    health = after(health, 204, now=NOW + DISABLE_AFTER - SECOND).health
    assert after(health, 500, now=NOW + DISABLE_AFTER).disable is None


def test_410_disables_for_its_own_reason() -> None:
    assert after(Health(), 410, verdict=Dead(Reason.GONE, disable="gone")).disable == "gone"


def test_the_longest_hold_that_was_asked_for_stands() -> None:
    long, short = NOW + 60 * SECOND, NOW + 5 * SECOND
    health = after(Health(), 429, verdict=Retry(long, hold_until=long)).health
    health = after(health, 503, verdict=Retry(short, hold_until=short)).health
    assert health.held_until == long
    assert after(health, 204).health.held_until == long
