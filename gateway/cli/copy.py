"""`gateway copy`: take a SQLite gateway over to PostgreSQL."""

import asyncio
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from gateway.errors import GatewayError
from gateway.storage.engines import without_password
from gateway.storage.engines.sqlite import DatabaseInUse
from gateway.storage.moving import CopyCutShort, MoveRefused, Report, copy, give_up

LINE_EVERY = 100_000
"""Without a terminal there is a line for each table, and one for so many rows of a large one."""


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="[TO]", envvar="GATEWAY_DATABASE_URL", required=False)
@click.option("--give-up", is_flag=True, help="Go on with FROM, before all of it is copied.")
def command(source: str, target: str | None, *, give_up: bool) -> None:
    """Copy the SQLite database FROM (sqlite:///gateway.db) to an empty PostgreSQL database TO (postgresql://…;
    GATEWAY_DATABASE_URL by default, which shows the password to nobody).

    Everything goes along: events, subscriptions, deliveries, keys, and places in the log, so that streams go on across
    it. Stop the gateway first. Interrupted, run it again: it goes on where it was. FROM is not served any more from the
    moment when it begins; TO is from the moment when it is whole.
    """
    try:
        if give_up:
            _give_up(source)
        else:
            _copy(source, target)
    except (MoveRefused, CopyCutShort, DatabaseInUse, GatewayError, OSError, ValueError) as error:
        click.echo(f"gateway: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("gateway: interrupted; run it again, and it goes on from here", err=True)
        sys.exit(130)


def _copy(source: str, target: str | None) -> None:
    if target is None:
        raise click.UsageError("Missing argument 'TO', or GATEWAY_DATABASE_URL")
    with _reporting() as report:
        is_new = asyncio.run(copy(source, target, report))
    place = without_password(target)
    click.echo(
        f"All of it is at {place} now: set GATEWAY_DATABASE_URL to it, with the GATEWAY_SECRET_KEY as it was"
        if is_new
        else f"All of it was copied to {place} before; nothing was done"
    )


def _give_up(source: str) -> None:
    asyncio.run(give_up(source))
    click.echo(f"{source} can be served again. Drop the database that it was being copied to: it can not be finished")


@contextmanager
def _reporting() -> Iterator[Report]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines()
        return
    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield Bars(progress)


class Bars:
    """For a terminal: a bar for each table that has rows."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def begins(self, rows: Mapping[str, int], there: Mapping[str, int]) -> None:
        for table, total in rows.items():
            if total:
                self._bars[table] = self._progress.add_task(table, total=total, completed=there[table])

    def copied(self, table: str, rows: int) -> None:
        if table in self._bars:
            self._progress.advance(self._bars[table], rows)

    def verifies(self) -> None:
        self._progress.console.print("counting what has arrived")


class Lines:
    """For logs and scripts."""

    def __init__(self) -> None:
        self._rows: Mapping[str, int] = {}
        self._there: dict[str, int] = {}

    def begins(self, rows: Mapping[str, int], there: Mapping[str, int]) -> None:
        self._rows, self._there = rows, dict(there)
        before = sum(there.values())
        click.echo(
            f"{sum(rows.values()):,} rows to copy" + (f", {before:,} of them are there already" if before else "")
        )

    def copied(self, table: str, rows: int) -> None:
        before, total = self._there[table], self._rows[table]
        self._there[table] = now = before + rows
        if rows and (now == total or now // LINE_EVERY > before // LINE_EVERY):
            click.echo(f"{table}: {now:,} of {total:,}")

    def verifies(self) -> None:
        click.echo("counting what has arrived")
