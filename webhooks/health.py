"""What an attempt means for its endpoint: a pure function.

one good answer ──▶ healthy
every attempt failed for half of `disable_after` ──▶ its owner is told
every attempt failed for `disable_after` ──▶ it is disabled, `failing`
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec.structs import replace

from webhooks import circuit
from webhooks.deliveries import Attempt, Failure
from webhooks.endpoints import Health
from webhooks.verdicts import Dead, Delivered, Retry, Verdict

FAILING = "failing"
NOBODY_THERE = {Failure.UNREACHABLE, Failure.TIMEOUT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prognosis:
    """The endpoint's health after an attempt, and what follows from it."""

    health: Health
    tell_failing: bool = False
    disable: str | None = None


def examine(
    health: Health, attempt: Attempt, verdict: Verdict, *, now: datetime, disable_after: timedelta
) -> Prognosis:
    """How its endpoint stands after *attempt*, which ended *now* and was judged *verdict*."""
    if attempt.failure in NOBODY_THERE:
        health = circuit.after_unreachable(health, started_at=attempt.started_at, now=now)
    elif attempt.failure is not Failure.FORBIDDEN:
        health = circuit.after_reached(health)
    if isinstance(verdict, Delivered):
        return Prognosis(health=replace(health, failing_since=None, failing_told=False, consecutive_failures=0))
    failing_since = health.failing_since or attempt.started_at
    health = replace(
        health,
        failing_since=failing_since,
        consecutive_failures=health.consecutive_failures + 1,
        held_until=_later(health.held_until, _hold_of(verdict)),
    )
    if isinstance(verdict, Dead) and verdict.disable:
        return Prognosis(health=health, disable=verdict.disable)
    failing_for = now - failing_since
    if failing_for >= disable_after:
        return Prognosis(health=replace(health, failing_told=True), disable=FAILING)
    if failing_for >= disable_after / 2 and not health.failing_told:
        return Prognosis(health=replace(health, failing_told=True), tell_failing=True)
    return Prognosis(health=health)


def _hold_of(verdict: Verdict) -> datetime | None:
    return verdict.hold_until if isinstance(verdict, Retry | Dead) else None


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max(one, other) if one and other else one or other
