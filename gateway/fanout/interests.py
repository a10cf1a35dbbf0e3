"""Who wants which events, as the log says it: found by library, and changed by the notices on their way."""

from collections.abc import Iterator, Sequence

import msgspec

from gateway.events import GATEWAY_LIBRARY, GATEWAY_PREFIX, LoggedEvent
from gateway.filters import Candidate, Filter, Matcher
from gateway.subscriptions import Interest


class Interests:
    """Who wants what, found by library, kept true by the notices in the log."""

    def __init__(self, interests: Sequence[Interest]) -> None:
        self._by_id: dict[str, tuple[Interest, Matcher]] = {}
        self._anywhere: dict[str, tuple[Interest, Matcher]] = {}
        self._by_library: dict[str, dict[str, tuple[Interest, Matcher]]] = {}
        for interest in interests:
            self._put(interest)

    def __len__(self) -> int:
        return len(self._by_id)

    def of(self, event: LoggedEvent) -> Iterator[Interest]:
        """Those that *event* is for."""
        candidate = Candidate(event)
        for some in (self._anywhere, self._by_library.get(event.library_id)):
            for interest, matcher in (some or {}).values():
                if event.cursor > interest.since and matcher.matches(candidate):
                    yield interest

    def apply(self, event: LoggedEvent) -> None:
        """If *event* is a notice that a subscription has changed, know it from here on."""
        if not event.type.startswith(SUBSCRIPTION_NOTICES):
            return
        notice = msgspec.json.decode(event.data, type=Notice)
        known = self._by_id.get(notice.subscription_id)
        self._drop(notice.subscription_id)
        if event.type != DELETED:
            self._put(
                Interest(
                    subscription_id=notice.subscription_id,
                    filter=Filter(_names(notice.library_ids), _names(notice.types), notice.filter),
                    libraries=event.audience,
                    since=known[0].since if known else event.cursor,
                )
            )

    def _put(self, interest: Interest) -> None:
        entry = (interest, Matcher(interest.filter, interest.libraries))
        self._by_id[interest.subscription_id] = entry
        for place in self._places(entry[1]):
            place[interest.subscription_id] = entry

    def _drop(self, subscription_id: str) -> None:
        if entry := self._by_id.pop(subscription_id, None):
            for place in self._places(entry[1]):
                del place[subscription_id]

    def _places(self, matcher: Matcher) -> Iterator[dict[str, tuple[Interest, Matcher]]]:
        if matcher.libraries is None:
            yield self._anywhere
            return
        own = {GATEWAY_LIBRARY} if matcher.filter.names_gateways_own else set()
        for library_id in matcher.libraries | own:
            yield self._by_library.setdefault(library_id, {})


class Notice(msgspec.Struct):
    """What the fan-out reads in a notice about a subscription."""

    subscription_id: str
    library_ids: list[str] | None = None
    types: list[str] | None = None
    filter: str | None = None


SUBSCRIPTION_NOTICES = f"{GATEWAY_PREFIX}subscription."
DELETED = f"{SUBSCRIPTION_NOTICES}deleted"


def _names(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
