"""`python -m tests.http.serve_streams`: a process that serves streams, prints its port, knows the key `secret-0`."""

import asyncio

from gateway.http.server import serve
from tests.http.served import Served


def main() -> None:
    served = Served()
    asyncio.run(_add_key(served))

    serve(served.app, host="127.0.0.1", port=0, drains=[served.streams.drain], listening=_print)


async def _add_key(served: Served) -> None:
    await served.key()


def _print(_host: str, port: int) -> None:
    print(port, flush=True)  # noqa: T201 - for whoever started it


if __name__ == "__main__":
    main()
