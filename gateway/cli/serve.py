"""`gateway serve`: run the gateway until it is told to stop."""

import asyncio
import socket
import sys

import click
import structlog

from gateway.app import Gateway, prepare
from gateway.cli import workers as several
from gateway.errors import GatewayError
from gateway.http.server import BACKLOG, serve
from gateway.roles import Role, roles_of
from gateway.settings import BadSetting, Settings, load
from gateway.storage.engines import without_password
from gateway.storage.engines.sqlite import DatabaseInUse
from gateway.telemetry import configure_logs
from gateway.version import __version__


def _roles(_context: click.Context, _parameter: click.Parameter, text: str) -> frozenset[Role]:
    try:
        return roles_of(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.option(
    "--roles",
    callback=_roles,
    default=",".join(Role),
    show_default=True,
    help="What this process does, where several share a database.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes that share the port; more than one on PostgreSQL only.",
)
@click.option("--inherited", hidden=True, help="What a worker has from its supervisor.")
def command(roles: frozenset[Role], workers: int, inherited: str | None) -> None:
    """Run the gateway. Settings come from the environment (GATEWAY_…)."""
    try:
        settings = load()
    except BadSetting as error:
        click.echo(f"gateway: {error}", err=True)
        sys.exit(2)
    configure_logs(settings.log_format)
    try:
        if inherited is not None:
            _work(settings, roles, several.Inherited.read(inherited))
        elif workers > 1:
            sys.exit(_supervise(settings, workers))
        else:
            _serve(settings, roles)
    except (DatabaseInUse, GatewayError, OSError) as error:
        click.echo(f"gateway: {error}", err=True)
        sys.exit(1)


def _serve(settings: Settings, roles: frozenset[Role]) -> None:
    gateway = Gateway(settings, roles=roles)
    serve(
        gateway.app,
        host=settings.host,
        port=settings.port,
        heartbeat_seconds=settings.stream_heartbeat_seconds,
        within=gateway.running,
        drains=[gateway.drain],
        listening=lambda host, port: click.echo(_banner(settings, gateway.first_key, host, port)),
    )


def _work(settings: Settings, roles: frozenset[Role], inherited: several.Inherited) -> None:
    """As one of several, on the socket of their supervisor."""
    structlog.contextvars.bind_contextvars(worker=inherited.number)
    lifeline = several.Lifeline(inherited.lifeline)
    gateway = Gateway(settings, roles=roles)
    serve(
        gateway.app,
        host=settings.host,
        port=settings.port,
        heartbeat_seconds=settings.stream_heartbeat_seconds,
        within=lambda: lifeline.within(gateway.running()),
        drains=[gateway.drain],
        listening=lambda _host, _port: lifeline.say_ready(),
        listener=socket.socket(fileno=inherited.listener),
    )


def _supervise(settings: Settings, count: int) -> int:
    if (why_not := several.refusal(settings, count)) is not None:
        click.echo(f"gateway: {why_not}", err=True)
        return 2

    async def run() -> int:
        with several.listen(settings.host, settings.port, BACKLOG) as listener:
            host, port, *_ = listener.getsockname()
            banner = _banner(settings, await prepare(settings), host, port, workers=count)
            command = several.own_command()
            return await several.Workers(command, listener, count=count, ready=lambda: click.echo(banner)).run()

    return asyncio.run(run())


def _banner(settings: Settings, first_key: str | None, host: str, port: int, *, workers: int = 1) -> str:
    here = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    lines = [
        f"Arrw Gateway {__version__}" + (f", {workers} workers" if workers > 1 else ""),
        f"  API       {here}/v1      described at {here}/docs and {here}/openapi.json",
        f"  streams   {here}/v1/events/stream      or as WebSocket /v1/events/ws",
        f"  data      {_place(settings)}",
    ]
    if first_key is not None:
        lines.append(f"  admin key {first_key}      shown this once: keep it")
    key = first_key or "$GATEWAY_ADMIN_KEY"
    lines += [
        "Try it:",
        f'  curl {here}/v1/events -H "Authorization: Bearer {key}" \\',
        """    -d '{"type": "document.added", "library_id": "books", "data": {"title": "My Document"}}'""",
    ]
    return "\n".join(lines)


def _place(settings: Settings) -> str:
    """Where the data is, without the password."""
    return without_password(settings.database_url).removeprefix("sqlite:///")
