"""Asks for the same again and again, each time when the last is answered, over one connection."""

import time
from array import array
from asyncio import open_connection

from gateway.bench.figures import percentile
from gateway.bench.roles.answering import Answer, answer_calls
from gateway.bench.roles.framing import Messages, status_of

READ_BYTES = 2**20


async def ask(*, host: str, port: int, key: str, path: str, item: str, times: int) -> Answer:
    """GET *path* so many *times*: how long an answer took, and how often *item* stood in all of them together.

    Raises:
        ConnectionError: it was not answered 200.
    """
    reader, writer = await open_connection(host, port)
    request = f"GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {key}\r\n\r\n".encode()
    messages, took, items = Messages(), array("d"), 0
    for _ in range(times):
        began = time.monotonic()
        writer.write(request)
        answer = None
        while answer is None:
            if not (data := await reader.read(READ_BYTES)):
                raise ConnectionError("the connection was lost")
            answer = next(messages.feed(data), None)
        took.append(time.monotonic() - began)
        head, body = answer
        if status_of(head) != 200:
            raise ConnectionError(f"GET {path} was answered {status_of(head)}: {body[:300]!r}")
        items += body.count(item.encode())
    writer.close()
    return {"p50": percentile(took, 50), "p99": percentile(took, 99), "items": items}


if __name__ == "__main__":
    answer_calls({"ask": ask})
