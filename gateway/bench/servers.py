"""Servers that somebody else runs, or has installed: PostgreSQL, by URL, and nginx with nchan, where it is found."""

import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from gateway.bench.errors import BenchError

NCHAN = "ngx_nchan_module.so"
NCHAN_BEGUN = ": hi"
"""What nchan says first to one who reads Server-Sent Events."""
_CONFIGURATION = """\
load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 60000; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    nchan_max_reserved_memory 512m;
    server {{
        listen 127.0.0.1:{port} backlog=16384;
        location = /v1/events {{
            nchan_publisher;
            nchan_channel_id bench;
            nchan_message_buffer_length 1000;
        }}
        location = /v1/events/stream {{
            nchan_subscriber eventsource;
            nchan_channel_id bench;
            nchan_subscriber_first_message newest;
        }}
    }}
}}
"""


@asynccontextmanager
async def new_database(server: str) -> AsyncIterator[str]:
    """The URL of a new database beside the one that *server* names; it is dropped at the end.

    Raises:
        BenchError: the server cannot be reached, or lets nobody make one.
    """
    name = f"gateway_bench_{secrets.token_hex(6)}"
    try:
        await _execute(server, f'CREATE DATABASE "{name}"')
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise BenchError(f"no database can be made at --server: {error!r}") from error
    before, _, query = server.partition("?")
    place, _, _ = before.rpartition("/")
    try:
        yield f"{place}/{name}{'?' if query else ''}{query}"
    finally:
        await _execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


def nchan_command() -> tuple[str, Path] | None:
    """nginx, and the module for it; None where either is not installed."""
    nginx = shutil.which("nginx")
    if nginx is None:
        return None
    module = Path(nginx).resolve().parents[1] / "lib/nginx/modules" / NCHAN
    return (nginx, module) if module.exists() else None


def nchan_configuration(module: Path, directory: Path, port: int) -> str:
    """One worker, and one channel for all."""
    return _CONFIGURATION.format(module=module, directory=directory, port=port)


async def _execute(server: str, statement: str) -> None:
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
