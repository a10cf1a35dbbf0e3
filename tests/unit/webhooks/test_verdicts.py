"""What an attempt means: tables, and the distribution of the waits."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from random import Random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhooks.schedule import RETRY_SCHEDULE, wait_after
from webhooks.verdicts import Dead, Delivered, Reason, Retry, Verdict, judge, read_retry_after

NOW = datetime(2025, 10, 27, 6, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def judged(
    status_code: int | None = 500,
    *,
    failures: int = 1,
    is_forbidden: bool = False,
    retry_after: str | None = None,
    give_up_at: datetime | None = None,
    rand: float = 0.5,
) -> Verdict:
    return judge(
        status_code=status_code,
        is_forbidden=is_forbidden,
        retry_after=retry_after,
        failures=failures,
        schedule=RETRY_SCHEDULE,
        now=NOW,
        give_up_at=give_up_at,
        rand=lambda: rand,
    )


def again(seconds: float, hold: float | None = None) -> Retry:
    hold_until = None if hold is None else NOW + timedelta(seconds=hold)
    return Retry(NOW + timedelta(seconds=seconds), hold_until=hold_until)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 226, 299])
def test_any_2xx_is_delivered(status: int) -> None:
    assert judged(status, failures=99) == Delivered()


@pytest.mark.parametrize(
    "status", [None, 101, 300, 301, 302, 303, 307, 308, 400, 401, 404, 408, 418, 429, 500, 503, 599]
)
def test_anything_else_is_tried_again(status: int | None) -> None:
    assert judged(status) == again(5)


def test_410_is_dead_and_disables() -> None:
    assert judged(410) == Dead(Reason.GONE, disable="gone")


def test_a_forbidden_destination_is_dead_at_once() -> None:
    assert judged(None, is_forbidden=True) == Dead(Reason.FORBIDDEN_DESTINATION)


@pytest.mark.parametrize(("failures", "wait"), list(enumerate(RETRY_SCHEDULE, start=1)))
def test_each_failure_waits_as_the_schedule_says(failures: int, wait: float) -> None:
    assert judged(500, failures=failures) == again(wait)


def test_the_tenth_failure_is_the_last() -> None:
    assert judged(500, failures=10) == Dead(Reason.EXHAUSTED)
    assert len(RETRY_SCHEDULE) == 9


@pytest.mark.parametrize(
    ("status", "header", "verdict"),
    [
        (429, "60", again(60, 60)),
        (503, "3", again(5, 3)),
        (503, "0", again(5)),
        (429, "100000000000", again(86_400, 86_400)),
        (429, "9" * 400, again(86_400, 86_400)),
        (429, "soon", again(5)),
        (429, "", again(5)),
        (429, "-5", again(5)),
        (429, "٣", again(5)),
        (429, " 60 ", again(60, 60)),
        (429, "1.5", again(5, 1.5)),
        (429, "Mon, 27 Oct 2025 06:01:00 GMT", again(60, 60)),
        (429, "Monday, 27-Oct-25 06:01:00 GMT", again(60, 60)),
        (429, "Mon Oct 27 06:01:00 2025", again(60, 60)),
        (503, "Mon, 27 Oct 2025 05:00:00 GMT", again(5)),
        (503, "Mon, 27 Oct 2125 05:00:00 GMT", again(86_400, 86_400)),
        (503, "Mon, 99 Oct 2025 05:00:00 GMT", again(5)),
        (500, "60", again(5)),
        (200, "60", Delivered()),
        (301, "60", again(5)),
    ],
)
def test_retry_after_is_heeded_on_429_and_503_and_nonsense_is_not(status: int, header: str, verdict: Verdict) -> None:
    assert judged(status, retry_after=header) == verdict


def test_the_last_attempt_can_still_ask_for_a_pause_of_the_others() -> None:
    hold = NOW + timedelta(seconds=60)
    assert judged(429, failures=10, retry_after="60") == Dead(Reason.EXHAUSTED, hold_until=hold)


def test_what_would_be_tried_after_its_greatest_age_is_given_up() -> None:
    assert judged(500, failures=2, give_up_at=NOW + timedelta(seconds=300)) == Dead(Reason.EXPIRED)
    assert judged(500, failures=2, give_up_at=NOW + timedelta(seconds=301)) == again(300)
    late = judged(429, retry_after="86400", give_up_at=NOW + DAY - timedelta(seconds=1))
    assert late == Dead(Reason.EXPIRED, hold_until=NOW + DAY)


@given(
    st.one_of(st.none(), st.integers(100, 599)),
    st.text() | st.integers().map(str),
    st.integers(1, 12),
    st.floats(0, 1, exclude_max=True),
)
def test_every_answer_has_a_verdict_and_none_is_early_or_later_than_a_day_too_late(
    status: int | None, header: str, failures: int, rand: float
) -> None:
    verdict = judged(status, failures=failures, retry_after=header, rand=rand)
    if status is not None and 200 <= status < 300:
        assert verdict == Delivered()
    if isinstance(verdict, Retry):
        wait = RETRY_SCHEDULE[failures - 1]
        assert timedelta(seconds=wait * 0.8) <= verdict.at - NOW <= max(timedelta(seconds=wait * 1.2), DAY)


@given(st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1)))  # noqa: DTZ001 - made aware below
def test_any_date_in_the_form_of_http_is_read(moment: datetime) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    until = read_retry_after(format_datetime(moment, usegmt=True), NOW)
    assert until == (min(moment, NOW + DAY) if moment > NOW else None)


def test_waits_spread_evenly_over_a_fifth_either_way() -> None:
    rand = Random(20251027).random
    waits = [wait.total_seconds() for _ in range(20_000) if (wait := wait_after(2, RETRY_SCHEDULE, rand))]
    assert 240 <= min(waits) < 242
    assert 358 < max(waits) <= 360
    assert abs(mean(waits) - 300) < 1
    tenths = [sum(240 + 12 * part <= wait < 252 + 12 * part for wait in waits) for part in range(10)]
    assert all(abs(count - 2_000) < 200 for count in tenths)


def test_a_schedule_of_ones_own_is_used_up_after_its_last_wait() -> None:
    assert wait_after(1, (), lambda: 0.5) is None
    assert wait_after(1, (0,), lambda: 0.99) == timedelta(0)
    assert wait_after(2, (0,), lambda: 0.5) is None
