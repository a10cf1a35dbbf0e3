"""When an endpoint that cannot be reached is left alone: a pure state machine over its `Health`.

CLOSED ──10 connection failures or time-outs in a row──▶ OPEN, for 10 s, then twice as long, up to 10 min
   ▲                                                      │ ▲
   │                                            time is up ▼ │ the probe fails
   └──────────────────── the probe is answered ────────── PROBING: one attempt at a time
"""

from datetime import datetime, timedelta
from enum import StrEnum

from msgspec.structs import replace

from webhooks.endpoints import Health

OPENS_AFTER = 10
FIRST_PAUSE = timedelta(seconds=10)
LONGEST_PAUSE = timedelta(minutes=10)


class Circuit(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


def state(health: Health, now: datetime) -> Circuit:
    if health.circuit_open_until is None:
        return Circuit.CLOSED
    return Circuit.OPEN if now < health.circuit_open_until else Circuit.PROBING


def pause(trips: int) -> timedelta:
    """How long it stays open the *trips*-th time in a row, from 1."""
    doublings: int = 2 ** min(trips - 1, 16)
    return min(FIRST_PAUSE * doublings, LONGEST_PAUSE)


def after_reached(health: Health) -> Health:
    """An attempt had an answer, whatever it said: somebody is there."""
    return replace(health, unreachable=0, circuit_trips=0, circuit_open_until=None)


def after_unreachable(health: Health, *, started_at: datetime, now: datetime) -> Health:
    """An attempt found nobody. One that began before the circuit's time was up was no probe: it opens nothing again."""
    unreachable = health.unreachable + 1
    until = health.circuit_open_until
    opens = unreachable >= OPENS_AFTER if until is None else started_at >= until
    if not opens:
        return replace(health, unreachable=unreachable)
    trips = health.circuit_trips + 1
    return replace(health, unreachable=unreachable, circuit_trips=trips, circuit_open_until=now + pause(trips))
