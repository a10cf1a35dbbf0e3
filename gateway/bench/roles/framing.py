"""HTTP/1.1 as far as a benchmark speaks it: messages with a `Content-Length`, on connections that are kept."""

import re
from collections.abc import Iterator

HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)


class Messages:
    """Cuts what one side of a connection says into messages."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The head and the body of each message that is complete now.

        Raises:
            ValueError: a body in chunks.
        """
        self._waiting += data
        while (head_end := self._waiting.find(HEAD_END)) >= 0:
            head = self._waiting[:head_end]
            if _CHUNKED.search(head):
                raise ValueError("a body in chunks")
            length = _LENGTH.search(head)
            end = head_end + len(HEAD_END) + (0 if length is None else int(length[1]))
            if len(self._waiting) < end:
                return
            body, self._waiting = self._waiting[head_end + len(HEAD_END) : end], self._waiting[end:]
            yield head, body


def status_of(head: bytes) -> int:
    return int(head[9:12])


def post_head(path: str, *, host: str, key: str) -> bytes:
    """All of a request but its length and its body."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
        "content-type: application/json\r\ncontent-length: "
    ).encode()


def post(head: bytes, body: bytes) -> bytes:
    return b"%b%d\r\n\r\n%b" % (head, len(body), body)
