"""Times: what is taken for one, and how one is written."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.times import as_utc, from_micros, parse_rfc3339, to_micros, to_rfc3339

SIX = datetime(2025, 10, 27, 6, 1, tzinfo=UTC)
moments = st.datetimes(timezones=st.just(UTC))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-10-27T06:01:00Z", SIX),
        ("2025-10-27T06:01:00", SIX),
        ("2025-10-27 06:01:00z", SIX),
        ("2025-10-27t06:01:00+00:00", SIX),
        ("2025-10-27T06:01:00-00:00", SIX),
        ("2025-10-27T08:31:00+02:30", SIX),
        ("2025-10-26T22:01:00-08:00", SIX),
        ("2025-10-27T06:01:00.5Z", SIX + timedelta(milliseconds=500)),
        ("2025-10-27T06:01:00.000001Z", SIX + timedelta(microseconds=1)),
        ("2025-10-27T06:01:00.0000019999999999999Z", SIX + timedelta(microseconds=1)),
        ("2024-02-29T00:00:00Z", datetime(2024, 2, 29, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2017-01-01T01:59:60.9+02:00", datetime(2017, 1, 1, tzinfo=UTC)),
    ],
)
def test_what_rfc_3339_writes_is_a_time(text: str, moment: datetime) -> None:
    assert parse_rfc3339(text) == moment
    assert parse_rfc3339(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "1761545460", "2025-10-27", "2025-10-27T06:01Z", "20251027T060100Z", "2025-W44-1T06:01:00Z"),
        *("2025-10-27T06:01:00+0000", "2025-10-27T06:01:00.Z", "2025-10-27T06:01:00,5Z", " 2025-10-27T06:01:00Z"),
        *("2025-10-27T06:01:00Z\n", "2025-10-27T24:00:00Z", "2025-10-27T06:60:00Z", "2025-10-27T06:01:61Z"),
        *("2025-02-29T00:00:00Z", "2025-13-01T00:00:00Z", "0000-01-01T00:00:00Z", "2025-10-27T06:01:00+24:00"),
        *("2025-10-27T06:01:00+00:60", "2025-10-27T06:01:60Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:60Z"),
        *("9999-12-31T23:59:59-00:01", "٢٠٢٥-10-27T06:01:00Z", "2025-10-27T06:01:00.5" + "0" * 40 + "Z"),
    ],
)
def test_nothing_else_is(text: str) -> None:
    with pytest.raises(ValueError, match="must be a time"):
        parse_rfc3339(text)


@given(moment=moments)
def test_a_time_that_is_written_is_read_again(moment: datetime) -> None:
    written = to_rfc3339(moment)
    assert parse_rfc3339(written) == moment
    assert len(written) == 27
    assert written.endswith("Z")


@given(left=moments, right=moments)
def test_written_times_sort_as_times_do(left: datetime, right: datetime) -> None:
    assert (to_rfc3339(left) < to_rfc3339(right)) == (left < right)


@given(moment=moments)
def test_microseconds_are_exact(moment: datetime) -> None:
    assert from_micros(to_micros(moment)) == moment
    assert to_micros(moment + timedelta.resolution * 0) == to_micros(moment)


@given(text=st.text(alphabet="0123456789-:.TZz+ ", max_size=30) | st.text(max_size=40))
def test_no_text_does_worse_than_not_being_a_time(text: str) -> None:
    try:
        assert parse_rfc3339(text).utcoffset() == timedelta(0)
    except ValueError as error:
        assert str(error).startswith("must be a time")  # noqa: PT017 - most texts are none, and some are


def test_a_naive_time_is_utc_and_others_are_moved_there() -> None:
    assert as_utc(SIX.replace(tzinfo=None)) == SIX
    elsewhere = SIX.astimezone(timezone(timedelta(hours=9)))
    assert as_utc(elsewhere).tzinfo is UTC
    assert to_rfc3339(elsewhere) == "2025-10-27T06:01:00.000000Z"
