"""What one process does: all of it, or a part, where several share a database."""

from enum import StrEnum


class Role(StrEnum):
    API = "api"
    """Takes events and answers requests."""
    STREAM = "stream"
    """Serves streams and WebSockets."""
    DISPATCH = "dispatch"
    """Sends webhooks, and is on duty when its turn comes."""


ALL_ROLES = frozenset(Role)


def roles_of(text: str) -> frozenset[Role]:
    """Of a list like `api,stream`.

    Raises:
        ValueError: it names none, or one that there is not; in words for a person.
    """
    expected = f"expected some of {', '.join(Role)}, with commas between them"
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in list(Role):
            raise ValueError(f"{name!r} is no role: {expected}" if name else expected)
    return frozenset(map(Role, names))
