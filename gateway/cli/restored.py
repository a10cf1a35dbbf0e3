"""`gateway restored`: say that a database comes from a backup, so that no reader skips what it does not know of."""

import asyncio
import sys

import click

from gateway.errors import GatewayError
from gateway.settings import BadSetting, load
from gateway.storage.engines import without_password
from gateway.storage.engines.sqlite import DatabaseInUse
from gateway.storage.restoring import Restored, RestoreRefused, restored


@click.command()
@click.argument("url", metavar="[DATABASE]", required=False)
def command(url: str | None) -> None:
    """Begin a new epoch in DATABASE (GATEWAY_DATABASE_URL by default). Run it once after a restore from a backup,
    before the gateway starts.

    The log is then shorter than readers know it, and new events get places that others have had. With a new epoch a
    reader that comes back with a cursor from before is told so (gateway.gap) instead of missing some unseen.
    """
    try:
        place = url or load().database_url
        done = asyncio.run(restored(place))
    except BadSetting as error:
        click.echo(f"gateway: {error}", err=True)
        sys.exit(2)
    except (RestoreRefused, DatabaseInUse, GatewayError, OSError, ValueError) as error:
        click.echo(f"gateway: {error}", err=True)
        sys.exit(1)
    click.echo(_report(without_password(place), done))


def _report(place: str, done: Restored) -> str:
    lines = [
        f"{place} begins a new epoch: {done.epoch}, before it was {done.former_epoch}.",
        f"Its log ends at {done.head:,}. A stream that comes back with a cursor from before gets gateway.gap,",
        "and goes on from the earliest event that is there.",
        f"{done.owed:,} deliveries are owed, and will be sent; what was sent after the backup was made is sent again.",
    ]
    if done.had_moved_to is not None:
        lines.append(
            f"It had moved to {done.had_moved_to}. Do not serve both: what is owed is owed by each of them from now on."
        )
    return "\n".join(lines)
