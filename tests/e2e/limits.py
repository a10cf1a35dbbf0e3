"""What receivers were promised of the senders together, whichever process each request came from."""

import time
from collections.abc import Sequence

from tests.e2e.receiver import Post


def check_pace(posts: Sequence[Post], per_second: float, *, slack_seconds: float) -> None:
    """Between any two of them there was the time that the rate asks for, less what the wire and late timers move."""
    latest = float("-inf")
    for number, post in enumerate(posts):
        due = post.at - number / per_second
        assert due > latest - slack_seconds, f"{latest - due:.3f} s too soon: {post.event_id}"
        latest = max(latest, due)


def most_at_once(posts: Sequence[Post]) -> int:
    return max(post.at_once for post in posts)


def is_late(post: Post, *, within_seconds: float) -> bool:
    """Whether it came in later than so long after its attempt had begun: a process has slept in between."""
    wall = time.time() - time.monotonic()
    # The header is rounded down to a second.
    return wall + post.at - int(post.headers["webhook-timestamp"]) > within_seconds + 1
