"""How a stream's end reaches its reader: how long it may take, and by which code a WebSocket is told why."""

from collections.abc import Mapping
from typing import Final

from gateway.streams.sinks import End

PATIENCE_SECONDS: Final = 1.0
"""For a reader to take the end of its stream."""
LINGER_SECONDS: Final = 15.0
"""For one that was too slow: it has to take what is on its way already before it sees the code behind it."""

NORMAL, FAILED, RESTART, TRY_AGAIN_LATER = 1000, 1011, 1012, 1013
UNAUTHENTICATED, FORBIDDEN = 4401, 4403

CLOSE_CODES: Final[Mapping[int, str]] = {
    NORMAL: "ended by an admin",
    FAILED: "no answer to a ping, or a fault of the gateway",
    RESTART: "the gateway is stopping: come back, at a time of your own",
    TRY_AGAIN_LATER: "too slow, or there is no room: come back with `after`, and nothing is missing",
    UNAUTHENTICATED: "the token has run out, or its key was revoked",
    FORBIDDEN: "not allowed; told so by servers that cannot refuse a handshake with a problem",
}
"""For people."""

_CODES: Final[Mapping[End, int]] = {
    End.DRAINED: RESTART,
    End.TOO_SLOW: TRY_AGAIN_LATER,
    End.LOG_UNREADABLE: TRY_AGAIN_LATER,
    End.EXPIRED: UNAUTHENTICATED,
    End.REVOKED: UNAUTHENTICATED,
}


def close_code(why: End) -> int:
    """The status code of the WebSocket's end (RFC 6455, 7.4, and the IANA's registry)."""
    return _CODES.get(why, NORMAL)
