"""`gateway bench`: how fast the gateway is on this machine, beside what one would do without it."""

import asyncio
import importlib
import importlib.util
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from rich.console import Console

from gateway.bench.errors import BenchError
from gateway.bench.figures import Measurement
from gateway.bench.report import document, is_void, show
from gateway.bench.running import MODES, SHORT, run
from gateway.bench.stage import Place, Sizes

ALL = "all"
AT_LEAST_ONE = click.IntRange(min=1)
MORE_THAN_NONE = click.FloatRange(min=0, min_open=True)


@click.command()
@click.argument("mode", type=click.Choice([*MODES, ALL]))
@click.option("--repeats", type=AT_LEAST_ONE, default=3, show_default=True, help="Each with a new gateway.")
@click.option("--events", type=AT_LEAST_ONE, help="To publish, as many as suit the mode by default.")
@click.option("--streams", type=AT_LEAST_ONE, help="To hold open, as many as suit the mode by default.")
@click.option("--subscriptions", type=AT_LEAST_ONE, help="For deliver (1), growth (10), workers (8), backlog (1,000).")
@click.option(
    "--history", type=AT_LEAST_ONE, default=10_000_000, show_default=True, help="Events in the log, for growth."
)
@click.option("--workers", type=click.IntRange(min=2), default=2, show_default=True, help="For workers.")
@click.option(
    "--rate", type=MORE_THAN_NONE, help="Events a second: latency (200), stream and paced (20), selective (1,000)."
)
@click.option("--seconds", type=MORE_THAN_NONE, help="How long at that rate (10), or at a backlog (60).")
@click.option("--connections", type=AT_LEAST_ONE, default=64, show_default=True, help="That single events go over.")
@click.option("--event-bytes", type=click.IntRange(150, 200_000), default=270, show_default=True)
@click.option("--url", help="A gateway that runs, instead of one of its own; it has to be let reach loopback.")
@click.option("--key", envvar="GATEWAY_ADMIN_KEY", help="Its admin key.  [default: GATEWAY_ADMIN_KEY]")
@click.option("--pid", type=int, help="Its process id, if it is on this machine: what it takes is measured then.")
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    help="Where the database is made: on the disk that is to be measured.  [default: that of temporary files]",
)
@click.option(
    "--server", help="A PostgreSQL on which databases are made instead, and dropped: postgresql://user@host/postgres"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw it; needs matplotlib.")
@click.option("--losing", type=click.IntRange(min=0), default=0, hidden=True)
def command(
    *,
    mode: str,
    repeats: int,
    events: int | None,
    streams: int | None,
    subscriptions: int | None,
    history: int,
    workers: int,
    rate: float | None,
    seconds: float | None,
    connections: int,
    event_bytes: int,
    url: str | None,
    key: str | None,
    pid: int | None,
    directory: Path | None,
    server: str | None,
    as_json: bool,
    plot: Path | None,
    losing: int,
) -> None:
    """Measure how fast the gateway is: MODE says what of it.

    \b
    publish, deliver, latency   a quarter of a minute for each repeat
    statements                  a quarter of a minute
    stream, paced, selective    half a minute to a minute
    storm                       half a minute
    backlog                     five minutes for a million deliveries, of which it sends those of one
    growth                      ten minutes for a log of ten million events, and 5 GB
    workers                     a minute; needs --server
    all                         the first eight, one after the other

    docs/performance.md says what each figure means. Exits with 1 if what was published did not all arrive.
    """
    if plot is not None and importlib.util.find_spec("matplotlib") is None:
        raise click.ClickException("--plot needs matplotlib, which is not installed: pip install matplotlib")
    sizes = Sizes(
        events=events,
        streams=streams,
        subscriptions=subscriptions,
        history=history,
        workers=workers,
        rate=rate,
        seconds=seconds,
        connections=connections,
        event_bytes=event_bytes,
        losing=losing,
    )
    place = Place(url=url, key=key, pid=pid, directory=directory, server=server)
    started_at, load_average = datetime.now(UTC), os.getloadavg()[0]
    found = _found(SHORT if mode == ALL else (mode,), place, sizes, repeats)
    if as_json:
        whole = document(found, repeats=repeats, started_at=started_at, load_average=load_average)
        click.echo(msgspec.json.format(msgspec.json.encode(whole), indent=2))
    else:
        show(found, Console())
    if plot is not None:
        importlib.import_module("gateway.bench.plot").draw(found, plot)
    if is_void(found):
        click.echo("void: a ledger does not balance", err=True)
        sys.exit(1)


def _found(modes: tuple[str, ...], place: Place, sizes: Sizes, repeats: int) -> list[Measurement]:
    """Ctrl-C and SIGTERM alike end what was started first."""

    async def measured() -> list[Measurement]:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs has one
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await run(modes, place, sizes, repeats=repeats, tell=lambda text: click.echo(text, err=True))

    try:
        return asyncio.run(measured())
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("ended before it was done; nothing was measured", err=True)
        sys.exit(130)
