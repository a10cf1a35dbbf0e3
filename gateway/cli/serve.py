"""`gateway serve`: run the gateway until it is told to stop."""

import sys

import click

from gateway.app import Gateway
from gateway.errors import GatewayError
from gateway.http.server import serve
from gateway.settings import BadSetting, Settings, load
from gateway.storage.engines import without_password
from gateway.storage.engines.sqlite import DatabaseInUse
from gateway.telemetry import configure_logs
from gateway.version import __version__


@click.command()
def command() -> None:
    """Run the gateway. Settings come from the environment (GATEWAY_…)."""
    try:
        settings = load()
    except BadSetting as error:
        click.echo(f"gateway: {error}", err=True)
        sys.exit(2)
    configure_logs(settings.log_format)
    gateway = Gateway(settings)
    try:
        serve(
            gateway.app,
            host=settings.host,
            port=settings.port,
            heartbeat_seconds=settings.stream_heartbeat_seconds,
            within=gateway.running,
            drains=[gateway.drain],
            listening=lambda host, port: click.echo(_banner(gateway, host, port)),
        )
    except (DatabaseInUse, GatewayError, OSError) as error:
        click.echo(f"gateway: {error}", err=True)
        sys.exit(1)


def _banner(gateway: Gateway, host: str, port: int) -> str:
    here = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    lines = [
        f"Arrw Gateway {__version__}",
        f"  API       {here}/v1      described at {here}/docs and {here}/openapi.json",
        f"  streams   {here}/v1/events/stream      or as WebSocket /v1/events/ws",
        f"  data      {_place(gateway.settings)}",
    ]
    if gateway.first_key is not None:
        lines.append(f"  admin key {gateway.first_key}      shown this once: keep it")
    key = gateway.first_key or "$GATEWAY_ADMIN_KEY"
    lines += [
        "Try it:",
        f'  curl {here}/v1/events -H "Authorization: Bearer {key}" \\',
        """    -d '{"type": "document.added", "library_id": "books", "data": {"title": "My Document"}}'""",
    ]
    return "\n".join(lines)


def _place(settings: Settings) -> str:
    """Where the data is, without the password."""
    return without_password(settings.database_url).removeprefix("sqlite:///")
