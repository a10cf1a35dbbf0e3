"""Why there is no delivery: a table."""

from typing import Any

import pytest

from gateway.events import Cursor
from gateway.explaining import why_none
from gateway.filters import Candidate, Filter
from gateway.ports.desk import Outcome
from gateway.subscriptions import Interest
from tests.builders import an_event

PLAIN: dict[str, Any] = {"type": "document.added", "library_id": "books", "data": b'{"n":1}'}
NOTICE: dict[str, Any] = {"type": "gateway.ping", "library_id": "gateway"}


def an_outcome(
    filter_: Filter,
    *,
    libraries: frozenset[str] | None = None,
    since: int = 0,
    fanned_out: int = 100,
    is_known: bool = True,
) -> Outcome:
    return Outcome(
        subscription_id="sub_1",
        deliveries=(),
        interest=Interest(subscription_id="sub_1", filter=filter_, libraries=libraries, since=Cursor(since)),
        is_known=is_known,
        fanned_out=Cursor(fanned_out),
    )


def names(*those: str) -> frozenset[str]:
    return frozenset(those)


@pytest.mark.parametrize(
    ("event", "outcome", "reason"),
    [
        (PLAIN, an_outcome(Filter(), since=10), "created later"),
        (PLAIN, an_outcome(Filter(types=names("x")), since=10), "created later"),
        (PLAIN, an_outcome(Filter(types=names("document.deleted"))), "filtered: type"),
        (PLAIN, an_outcome(Filter(library_ids=names("films"))), "filtered: library"),
        (PLAIN, an_outcome(Filter(expression="event.data.n > 1")), "filtered: filter"),
        (PLAIN, an_outcome(Filter(expression="event.data.absent > 1")), "filtered: filter"),
        (PLAIN, an_outcome(Filter(), libraries=names("films")), "not allowed"),
        (PLAIN, an_outcome(Filter(types=names("x")), libraries=names("films")), "not allowed"),
        (PLAIN, an_outcome(Filter(library_ids=names("films")), libraries=names("films")), "filtered: library"),
        (PLAIN, an_outcome(Filter(), fanned_out=9), "not yet"),
        (PLAIN, an_outcome(Filter(types=names("x")), fanned_out=9), "filtered: type"),
        (PLAIN, an_outcome(Filter()), "no longer kept"),
        (PLAIN, an_outcome(Filter(), is_known=False), "filter changed"),
        (NOTICE, an_outcome(Filter()), "filtered: type"),
        (NOTICE, an_outcome(Filter(types=names("gateway.*")), libraries=names("films")), "not allowed"),
        (NOTICE, an_outcome(Filter(types=names("gateway.*"))), "no longer kept"),
    ],
)
def test_the_reason_is_the_first_that_there_is(event: dict[str, Any], outcome: Outcome, reason: str) -> None:
    candidate = Candidate(an_event(cursor=10, **event))
    assert why_none(candidate, outcome) == reason
