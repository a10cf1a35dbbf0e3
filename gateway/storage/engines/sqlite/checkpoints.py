"""The write-ahead log moved back into the database, beside the writer."""

import asyncio
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

import structlog

from gateway.storage.engines.sqlite import file
from gateway.storage.engines.sqlite.steps import InThread

_logger = structlog.get_logger(__name__)

CHECKPOINT_SECONDS = 1.0
CHECKPOINT_BYTES = 4 * 2**20
"""A smaller write-ahead log is left alone."""
RESTART_BYTES = 64 * 2**20
"""A larger one is emptied with the writer held up, or readers could let it grow without end."""


class Checkpoints:
    """Moves the write-ahead log back into the database, beside the writer rather than in its commits."""

    def __init__(self, database: Path, writer: InThread) -> None:
        self._wal = database.with_name(database.name + "-wal")
        self._database = database
        self._thread = InThread("sqlite-checkpoints")
        self._writer = writer

    async def run(self) -> None:
        connection = await self._thread(lambda: file.opened(self._database, writer=True))
        try:
            while True:
                await asyncio.sleep(CHECKPOINT_SECONDS)
                try:
                    await self._look(connection)
                except sqlite3.Error as error:  # a full disk, a busy reader: the next second may do better
                    _logger.warning("checkpoint.failed", error=str(error))
        finally:
            self._thread.end()
            # The writer's thread may be in the middle of a checkpoint on it: to close it meanwhile would be a crash.
            self._writer.soon(connection.close)

    async def _look(self, connection: sqlite3.Connection) -> None:
        size = self._size()
        if size > CHECKPOINT_BYTES:
            await self._thread(lambda: file.checkpoint(connection, "PASSIVE"))
        if size > RESTART_BYTES:
            # In the writer's thread, between two transactions: what was written during the first pass is left to move.
            await self._writer(lambda: file.checkpoint(connection, "RESTART"))

    def _size(self) -> int:
        with suppress(FileNotFoundError):
            return os.stat(self._wal).st_size  # noqa: PTH116 - called each second; no object is needed
        return 0
