"""The child's half of the conversation: a line of JSON on standard input is a call, one on standard output its answer.

It ends with its standard input: no child outlives who started it.
"""

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from uvicorn.loops.auto import auto_loop_factory

Answer = dict[str, Any]
Calls = Mapping[str, Callable[..., Awaitable[Answer]]]
MAX_LINE_BYTES = 2**24


def answer_calls(calls: Calls) -> None:
    """`{"call": name, …}` is answered with `{"answer": …}` or `{"error": …}`, one after the other, until none comes."""
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(_converse(calls))


async def _converse(calls: Calls) -> None:
    lines = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        sys.stdout.buffer.write(msgspec.json.encode(await _answer(calls, msgspec.json.decode(line))) + b"\n")
        sys.stdout.buffer.flush()


async def _answer(calls: Calls, call: dict[str, Any]) -> Answer:
    try:
        return {"answer": await calls[call.pop("call")](**call)}
    except Exception as error:  # noqa: BLE001 - who asked is told, whatever it was
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}
