"""What the streams of this process have done so far."""

from dataclasses import dataclass, field


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
    gaps: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    """By reason."""
