"""What the streams of this process have done so far."""

from dataclasses import dataclass, field

from gateway.rollups.distribution import EVENTS, SECONDS, Distribution


@dataclass(slots=True)
class Counts:
    """Of this process, since its start."""

    opened: int = 0
    frames: int = 0
    """Everything written, heartbeats and all."""
    bytes: int = 0
    events_delivered: int = 0
    live_events_delivered: int = 0
    latency_seconds: float = 0.0
    """Sum over `live_events_delivered` of the time from acceptance to the socket."""
    lag: Distribution = field(default_factory=lambda: Distribution(SECONDS))
    """The same times, as they are spread."""
    replayed: Distribution = field(default_factory=lambda: Distribution(EVENTS))
    """How many events before the head those began that did not begin live."""
    gaps: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    """By reason."""
