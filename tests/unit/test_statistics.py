"""The figures: what counts, and that they stay few."""

from datetime import timedelta

import pytest

from gateway.events import Cursor, Draft
from gateway.ports.log import Appended, IdTaken, Receipt
from gateway.statistics import MAX_TYPES, CountedPublisher, Counters, DeliveryTally, Share
from tests.builders import a_draft
from tests.fakes.clock import START
from tests.fakes.deliveries import a_delivery, an_attempt
from webhooks.deliveries import Settlement
from webhooks.endpoints import Health
from webhooks.verdicts import Delivered


def accepted(drafts: list[Draft], *, duplicate: bool = False) -> tuple[Receipt, ...]:
    return tuple(Receipt(draft.id, Cursor(number), duplicate) for number, draft in enumerate(drafts, 1))


def counted(counters: Counters, drafts: list[Draft], *, duplicate: bool = False) -> None:
    counters.published(drafts, accepted(drafts, duplicate=duplicate))


def test_a_process_that_did_nothing_has_figures_too() -> None:
    times = iter([100.0, 103.5])
    assert Counters(monotonic=lambda: next(times)).figures() == {
        "total_published": 0,
        "total_delivered": 0,
        "active_subscribers": 0,
        "queue_size": 0,
        "events_by_type": {},
        "average_delivery_latency_ms": 0.0,
        "uptime_seconds": 3.5,
        "total_duplicates": 0,
        "events_of_other_types": 0,
    }


def test_events_are_counted_by_type() -> None:
    counters = Counters()
    counted(counters, [a_draft(type="a"), a_draft(type="b"), a_draft(type="a")])
    figures = counters.figures()
    assert (figures["total_published"], figures["events_by_type"]) == (3, {"a": 2, "b": 1})


def test_what_was_there_before_is_not_published_again() -> None:
    counters = Counters()
    counted(counters, [a_draft()], duplicate=True)
    counters.published([a_draft()], IdTaken(0, "x"))
    figures = counters.figures()
    assert (figures["total_published"], figures["total_duplicates"], figures["events_by_type"]) == (0, 1, {})


def test_the_gateways_own_events_are_not_counted() -> None:
    counters = Counters()
    counted(counters, [a_draft(type="gateway.ping")])
    assert (counters.figures()["total_published"], counters.figures()["events_by_type"]) == (0, {})


def test_types_stop_at_a_thousand() -> None:
    counters = Counters()
    for number in range(MAX_TYPES + 5):
        counted(counters, [a_draft(type=f"t{number}")])
    counted(counters, [a_draft(type="t0")])
    figures = counters.figures()
    assert len(figures["events_by_type"]) == MAX_TYPES
    assert figures["events_by_type"]["t0"] == 2
    assert figures["events_of_other_types"] == 5
    assert figures["total_published"] == MAX_TYPES + 6


def test_shares_are_added_up() -> None:
    counters = Counters()
    counters.add(lambda: Share(subscribers=2, waiting=1, delivered=3, latency_seconds=0.03, extras={"streams_open": 2}))
    counters.add(lambda: Share(subscribers=1, delivered=1, latency_seconds=0.01))
    figures = counters.figures()
    assert (figures["active_subscribers"], figures["queue_size"], figures["total_delivered"]) == (3, 1, 4)
    assert figures["average_delivery_latency_ms"] == 10.0
    assert figures["streams_open"] == 2


async def test_a_publisher_that_counts_answers_what_it_was_answered() -> None:
    class Publisher:
        queue_size = 7

        async def publish(self, drafts: object) -> Appended:
            assert isinstance(drafts, list)
            if not drafts:
                raise RuntimeError("refused")
            return accepted(drafts)

    counters = Counters()
    publisher = CountedPublisher(Publisher(), counters)
    drafts = [a_draft(type="a")]
    assert await publisher.publish(drafts) == accepted(drafts)
    with pytest.raises(RuntimeError, match="refused"):
        await publisher.publish([])
    assert (counters.figures()["total_published"], counters.figures()["queue_size"]) == (1, 7)


def test_a_replay_counts_and_says_nothing_about_how_long_an_event_takes() -> None:
    tally, counters = DeliveryTally(), Counters()
    counters.add(lambda: tally.share(subscriptions=1, behind=0))
    later = START + timedelta(seconds=2)
    for delivery in (a_delivery(1), a_delivery(2, replay_id="rpl_1", replayed=True)):
        settlement = Settlement(delivery=delivery, attempt=an_attempt(), verdict=Delivered(), health=Health(), at=later)
        tally.count([settlement])
    figures = counters.figures()
    assert (figures["total_delivered"], figures["webhook_attempts"]) == (2, 2)
    assert figures["average_delivery_latency_ms"] == 2000.0


def test_deliveries_of_the_gateways_own_events_are_not_counted() -> None:
    tally, counters = DeliveryTally(), Counters()
    counters.add(lambda: tally.share(subscriptions=1, behind=0))
    for type_ in ("document.added", "gateway.subscription.created"):
        delivery = a_delivery(1, event_type=type_)
        tally.count([Settlement(delivery=delivery, attempt=None, verdict=Delivered(), health=Health(), at=START)])
    assert (counters.figures()["total_delivered"], tally.delivered) == (1, 2)
