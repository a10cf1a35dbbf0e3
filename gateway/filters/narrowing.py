"""What a filter still lets through for a caller whose token is good for certain types only."""

from collections.abc import Iterator
from dataclasses import replace

from gateway.events import GATEWAY_PREFIX
from gateway.filters import ANY_TYPE, Filter


def narrowed(filter_: Filter, types: frozenset[str] | None) -> Filter:
    """*filter_* with only those types that are among *types* as well (None: all). It may let nothing through.

    A filter without types means all of *types*; so the gateway's own events are in it if *types* name them.
    """
    if types is None:
        return filter_
    if filter_.types is None:
        return replace(filter_, types=types)
    return replace(filter_, types=frozenset(_common(filter_.types, types)))


def _common(some: frozenset[str], others: frozenset[str]) -> Iterator[str]:
    for one in some:
        for other in others:
            if _includes(one, other):
                yield other
            elif _includes(other, one):
                yield one


def _includes(wide: str, narrow: str) -> bool:
    """Whether everything that *narrow* means is meant by *wide* too. `*` does not mean the gateway's own events."""
    if wide == narrow:
        return True
    if wide == ANY_TYPE:
        return not narrow.startswith(GATEWAY_PREFIX)
    return wide.endswith(".*") and narrow.startswith(wide[:-1])
