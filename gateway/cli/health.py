"""`gateway health`: for container engines and scripts that ask with an exit status."""

import sys

import click
import httpx


@click.command()
@click.option(
    "--url", envvar="GATEWAY_URL", default=None, help="Where the gateway is.  [default: this machine, GATEWAY_PORT]"
)
@click.option("--port", envvar="GATEWAY_PORT", default=8000, show_default=True, hidden=True)
def command(url: str | None, port: int) -> None:
    """Ask a running gateway whether it is ready; exit with 0 if so."""
    try:
        answer = httpx.get(f"{url or f'http://127.0.0.1:{port}'}/health/ready", timeout=3, trust_env=False)
    except httpx.HTTPError as error:
        click.echo(f"no answer: {error}", err=True)
        sys.exit(1)
    click.echo(answer.text)
    sys.exit(0 if answer.is_success else 1)
