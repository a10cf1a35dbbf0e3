"""Why a subscription has no delivery of an event: a pure function, in words for a person."""

from gateway.filters import Candidate, Matcher
from gateway.ports.desk import Outcome

CREATED_LATER = "created later"
NOT_YET = "not yet"
NOT_ALLOWED = "not allowed"
FILTERED = "filtered: {part}"
NO_LONGER_KEPT = "no longer kept"
FILTER_CHANGED = "filter changed"


def why_none(candidate: Candidate, outcome: Outcome) -> str:
    """*candidate* is the event, of which *outcome* has no delivery."""
    event, interest = candidate.event, outcome.interest
    if event.cursor <= interest.since:
        return CREATED_LATER
    part = Matcher(interest.filter, interest.libraries).refusal(candidate)
    if part == "library" and Matcher(interest.filter).refusal(candidate) != "library":
        return NOT_ALLOWED
    if part is not None:
        return FILTERED.format(part=part)
    if event.cursor > outcome.fanned_out:
        return NOT_YET
    return NO_LONGER_KEPT if outcome.is_known else FILTER_CHANGED
