"""Replays as values, and what their runner needs of a store.

RUNNING ──all made, and none of it pending──▶ FINISHED
   └──── a person, or its subscription is deleted ────▶ STOPPED: what was pending is cancelled
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from gateway.events import Cursor, LoggedEvent
from gateway.filters import Filter, Matcher
from webhooks.deliveries import Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """The places of the log after `after`, up to and including `last`."""

    after: Cursor
    last: Cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which events of a stretch are sent again: those that both filters choose."""

    subscription_id: str
    own: Filter
    """The subscription's, as it was when the replay was asked for. The gateway's own events need be named here."""
    libraries: frozenset[str] | None
    """What the subscription is confined to."""
    asked: Filter = field(default_factory=Filter)
    """Types and libraries that were asked for; no types means all."""
    undelivered: bool = False
    """Only events none of whose deliveries to the subscription is pending or delivered."""

    @property
    def is_plain(self) -> bool:
        """Whether names alone decide: no expression, and no audience that a reader has to belong to."""
        return self.own.expression is None and not self.own.names_gateways_own

    def matcher(self) -> Matcher:
        """Has the last word on what a store finds."""
        return Matcher(self.own, self.libraries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    matched: int
    last: Cursor
    """So far it was looked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    events: tuple[LoggedEvent, ...]
    last: Cursor
    """So far it was looked: between the events, and after them, there is nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One that is not finished, as its runner sees it."""

    id: str
    subscription_id: str | None
    selection: Selection | None = None
    """None: it is a redelivery, whose deliveries are there already."""
    stretch: Stretch | None = None
    """What is left of its stretch."""
    max_per_second: float | None = None
    is_stopped: bool = False
    is_active: bool = False
    """Whether its subscription is neither paused nor disabled."""
    is_orphaned: bool = False
    """Whether its subscription was deleted."""
    untried: int = 0
    """Deliveries of it that are pending and have had no attempt."""
    pending: int = 0

    @property
    def is_made(self) -> bool:
        """Whether there is nothing more to make of it."""
        return self.is_stopped or self.stretch is None or self.stretch.after >= self.stretch.last

    def is_level_with(self, fanned_out: Cursor) -> bool:
        """Whether it has come as far as the fan-out, which it never overtakes."""
        return self.stretch is not None and self.stretch.after >= fanned_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """All replays that are not finished, oldest first, and up to where events have their live deliveries."""

    replays: tuple[Replay, ...]
    fanned_out: Cursor


class ReplayStore(Protocol):
    """Every read is bounded, whatever the log holds: it says how far it looked, to go on from there."""

    async def stretch(self, since: datetime, until: datetime | None) -> Stretch:
        """The places of what was accepted at *since* or later and before *until* (None: by now)."""

    async def fanned_out(self) -> Cursor:
        """Up to where events have their live deliveries."""

    async def count(self, selection: Selection, stretch: Stretch) -> Counted:
        """How many events *selection*, which has to be plain, chooses at the beginning of *stretch*."""

    async def find(self, selection: Selection, stretch: Stretch, *, limit: int) -> Found:
        """At most *limit* events from the beginning of *stretch* that *selection* may choose, in order.

        Its matcher has the last word. Places that retention has dropped are passed over.
        """

    async def start(
        self,
        selection: Selection,
        stretch: Stretch,
        *,
        matched: int,
        max_per_second: float | None,
        now: datetime,
        at_most: int,
    ) -> str | None:
        """Keep a new replay, durably; its id. None, and nothing is kept: its subscription is gone.

        Raises:
            Conflict: the subscription has *at_most* unfinished ones already.
        """

    async def unfinished(self) -> Unfinished: ...

    async def make(self, replay: Replay, events: Sequence[LoggedEvent], *, to: Cursor) -> Sequence[Delivery] | None:
        """Create the deliveries of *events* and move the replay's cursor to *to*, together; what was created.

        Events that have left the log meanwhile, or that are no longer undelivered where only those were asked for,
        are passed over. None, and nothing is written: it was stopped, its subscription is gone, or another process
        has moved it.
        """

    async def stop(self, replay_id: str) -> frozenset[str] | None:
        """Make no more of it, and cancel what is pending; the subscriptions it was pending for. None: there is none."""

    async def finish(self, replay_ids: Sequence[str]) -> None:
        """Say of those that have nothing pending, and are made or stopped, that they are finished.

        One whose subscription is gone is stopped by that.
        """
