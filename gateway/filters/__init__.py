"""Which events a reader wants: one filter for streams, listings, subscriptions and handlers in this process.

    Filter.parse(words of a caller) ──▶ Filter          a value: compared, hashed, stored
    Matcher(filter, libraries)      ──▶ matches(Candidate(event))

The gateway's own events (`gateway.…`) go only to filters that name them: no type, or `*`, does not mean them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.errors import Fault, InvalidInput
from gateway.events import GATEWAY_LIBRARY, GATEWAY_PREFIX, LoggedEvent
from gateway.filters.cel import Activation, activation_of, compile_expression

MAX_CHOICES = 100
MAX_NAME_LENGTH = 128
ANY_TYPE = "*"

_TYPE_PATTERN = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*(\.\*)?|\*", re.ASCII)
_LIBRARY_ID = re.compile(r"(?!\.+\Z)[A-Za-z0-9_.:-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Filter:
    """Libraries (any of), types (any of: exact, `branch.*`, `*`) and a CEL expression; None is no limit.

    Equal filters compare and hash equal, whatever order their lists were written in.
    """

    library_ids: frozenset[str] | None = None
    types: frozenset[str] | None = None
    expression: str | None = None

    @classmethod
    def parse(
        cls,
        *,
        library_ids: Sequence[str] | None = None,
        types: Sequence[str] | None = None,
        expression: str | None = None,
    ) -> "Filter":
        """The filter in the words of API.md.

        Raises:
            InvalidInput: naming each fault, at `/library_ids/0`, `/types/1` or `/filter`.
        """
        faults = [
            *_list_faults("/library_ids", library_ids, library_id_fault),
            *_list_faults("/types", types, type_pattern_fault),
        ]
        if expression is not None:
            try:
                compile_expression(expression)
            except InvalidInput as error:
                faults.extend(error.faults)
        if faults:
            first = faults[0]
            raise InvalidInput(f"{first.pointer}: {first.detail}", faults)
        return cls(
            library_ids=None if library_ids is None else frozenset(library_ids),
            types=None if types is None else frozenset(types),
            expression=expression,
        )

    @property
    def every_type(self) -> bool:
        """Whether every type but the gateway's own is wanted, named or not."""
        return self.types is None or ANY_TYPE in self.types

    @property
    def exact_types(self) -> frozenset[str]:
        return frozenset(name for name in self.types or () if not name.endswith("*"))

    @property
    def branches(self) -> tuple[str, ...]:
        """The prefixes wanted, each with its last dot: `document.` for `document.*`."""
        return tuple(sorted(name[:-1] for name in self.types or () if name.endswith(".*")))

    @property
    def names_gateways_own(self) -> bool:
        """Whether it asks for any of the gateway's own events."""
        return any(name.startswith(GATEWAY_PREFIX) for name in self.types or ())

    def outside(self, libraries: frozenset[str] | None) -> frozenset[str]:
        """The libraries it names that a caller confined to *libraries* (None: not confined) may not ask for."""
        if libraries is None or self.library_ids is None:
            return frozenset()
        return self.library_ids - libraries - {GATEWAY_LIBRARY}


class Candidate:
    """An event that is up for matching: made once, shown to every matcher, so that what is costly happens once."""

    __slots__ = ("_activation", "event")

    def __init__(self, event: LoggedEvent) -> None:
        self.event = event
        self._activation: Activation | None = None

    @property
    def activation(self) -> Activation:
        """The event as CEL sees it, made when the first expression needs it."""
        if self._activation is None:
            self._activation = activation_of(self.event)
        return self._activation


class Matcher:
    """A filter as one reader may use it. `libraries` is the reader's confinement (None: every library)."""

    __slots__ = ("_branches", "_every_type", "_exact", "_libraries", "_program", "confinement", "filter")

    def __init__(self, filter_: Filter, libraries: frozenset[str] | None = None) -> None:
        self.filter = filter_
        self.confinement = libraries
        self._libraries = filter_.library_ids
        if libraries is not None:
            self._libraries = libraries if self._libraries is None else self._libraries & libraries
        self._every_type = filter_.every_type
        self._exact = filter_.exact_types
        self._branches = filter_.branches
        self._program = None if filter_.expression is None else compile_expression(filter_.expression)

    @property
    def libraries(self) -> frozenset[str] | None:
        """Whose events it can match, the gateway's own apart; None: any library's."""
        return self._libraries

    def matches(self, candidate: Candidate) -> bool:
        return self.refusal(candidate) is None

    def refusal(self, candidate: Candidate) -> str | None:
        """Which part of the filter keeps the event away: `library`, `type` or `filter`; None when it matches."""
        event = candidate.event
        kind = event.type
        named = kind in self._exact or kind.startswith(self._branches)
        if kind.startswith(GATEWAY_PREFIX):
            if not named:
                return "type"
            if not self._may_see_own(event):
                return "library"
        elif self._libraries is not None and event.library_id not in self._libraries:
            return "library"
        elif not (named or self._every_type):
            return "type"
        if self._program is not None and not self._program.is_true(candidate.activation):
            return "filter"
        return None

    def _may_see_own(self, event: LoggedEvent) -> bool:
        """The gateway's own events are of no caller's library: what they are about says who may see them."""
        wanted = self.filter.library_ids
        if wanted is not None and event.library_id not in wanted:
            return False
        if self.confinement is None:
            return True
        return event.audience is not None and event.audience <= self.confinement


def library_id_fault(text: str) -> str | None:
    """What is wrong with *text* as a library's id, in words; None when nothing is."""
    if not 1 <= len(text) <= MAX_NAME_LENGTH:
        return f"must have 1 to {MAX_NAME_LENGTH} characters"
    if not _LIBRARY_ID.fullmatch(text):
        return "must consist of letters, digits and _ . : - and not of dots only"
    return None


def type_pattern_fault(text: str) -> str | None:
    """What is wrong with *text* as a type to ask for: exact, `branch.*`, or `*`."""
    if not 1 <= len(text) <= MAX_NAME_LENGTH:
        return f"must have 1 to {MAX_NAME_LENGTH} characters"
    if not _TYPE_PATTERN.fullmatch(text):
        return "must be an event type like document.added, a branch like document.*, or *"
    return None


def _list_faults(pointer: str, values: Sequence[str] | None, fault_of: Callable[[str], str | None]) -> list[Fault]:
    if values is None:
        return []
    if not values:
        return [Fault(pointer, "must name at least one; leave it out for no limit")]
    if len(values) > MAX_CHOICES:
        return [Fault(pointer, f"must name at most {MAX_CHOICES}")]
    found = ((index, fault_of(value)) for index, value in enumerate(values))
    return [Fault(f"{pointer}/{index}", fault) for index, fault in found if fault is not None]
