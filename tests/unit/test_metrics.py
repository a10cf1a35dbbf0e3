"""How figures become lines for Prometheus, and how often the database is asked for them."""

from collections.abc import Iterable

import pytest
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from gateway import metrics
from gateway.errors import StorageUnavailable
from gateway.events import Cursor, Position
from gateway.publishing import Publisher
from gateway.rollups.distribution import Distribution
from gateway.rollups.rollups import Overview, Rollups
from gateway.statistics import MAX_TYPES, Counters
from gateway.storage.memory import MemoryEventLog
from tests.builders import NOON, a_draft
from tests.http.doubles import CannedRollups
from tests.unit.test_statistics import counted


class Ailing(CannedRollups):
    """Counts how often it is asked; fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.fails = False

    async def overview(self) -> Overview:
        self.asked += 1
        if self.fails:
            raise StorageUnavailable("the disk is away")
        return await super().overview()


class At:
    """A reader of the log, at a place."""

    def __init__(self, cursor: int) -> None:
        self.cursor = Cursor(cursor)


def printed(*families: Metric) -> str:
    class Given(Collector):
        def collect(self) -> Iterable[Metric]:
            return families

    registry = CollectorRegistry()
    registry.register(Given())
    return generate_latest(registry).decode()


def test_a_distribution_counts_what_is_at_or_below_each_bound() -> None:
    spread = Distribution((1.0, 10.0))
    for value, times in ((0.5, 1), (1.0, 2), (9.0, 3), (11.0, 4)):
        spread.observe(value, times)
    lines = printed(metrics.histogram("x", "X.", spread)).splitlines()
    assert lines[2:] == [
        'x_bucket{le="1.0"} 3.0',
        'x_bucket{le="10.0"} 6.0',
        'x_bucket{le="+Inf"} 10.0',
        "x_count 10.0",
        "x_sum 73.5",
    ]


def test_types_stop_at_a_thousand_and_the_others_have_a_name_that_no_type_has() -> None:
    counters = Counters()
    for number in range(MAX_TYPES + 5):
        counted(counters, [a_draft(type=f"t{number}")])
    text = printed(*metrics.publishing(counters, Publisher(MemoryEventLog())))
    assert text.count('gateway_events_published_total{type="') == MAX_TYPES + 1
    assert 'gateway_events_published_total{type="(other)"} 5.0' in text


async def looked(looks: metrics.Looks, *, tail: int = 0, fanout: int = 0) -> str:
    await looks.refresh()
    return printed(*looks.families(At(tail), At(fanout)))


@pytest.fixture
def rollups() -> Ailing:
    return Ailing()


def looks_at(rollups: Rollups, seconds: list[float]) -> metrics.Looks:
    return metrics.Looks(MemoryEventLog(epoch="k3v9"), rollups, clock=lambda: NOON, monotonic=lambda: seconds[0])


async def test_the_database_is_asked_at_most_every_few_seconds(rollups: Ailing) -> None:
    seconds = [100.0]
    looks = looks_at(rollups, seconds)
    for _ in range(5):
        await looked(looks)
    assert rollups.asked == 1
    seconds[0] += metrics.LOOK_SECONDS
    await looked(looks)
    assert rollups.asked == 2


async def test_what_the_database_does_not_tell_is_left_out(rollups: Ailing) -> None:
    seconds = [100.0]
    looks = looks_at(rollups, seconds)
    assert "gateway_database_up 1.0" in await looked(looks)
    rollups.fails = True
    seconds[0] += metrics.LOOK_SECONDS
    text = await looked(looks)
    assert "gateway_database_up 0.0" in text
    assert "gateway_deliveries" not in text
    rollups.fails = False
    seconds[0] += metrics.LOOK_SECONDS
    assert "gateway_database_up 1.0" in await looked(looks)


async def test_lags_are_counted_from_the_head_as_far_as_it_is_known(rollups: Ailing) -> None:
    class Log(MemoryEventLog):
        async def position(self) -> Position:
            return Position(epoch="k3v9", head=Cursor(10), earliest=Cursor(1))

    looks = metrics.Looks(Log(), rollups, clock=lambda: NOON)
    text = await looked(looks, tail=8, fanout=3)
    assert "gateway_tail_lag_events 2.0" in text
    assert "gateway_fanout_lag_events 7.0" in text
    ahead = await looked(looks, tail=12, fanout=12)
    assert "gateway_log_head 12.0" in ahead
    assert "gateway_tail_lag_events 0.0" in ahead
    assert "gateway_fanout_lag_events 0.0" in ahead
