"""`gateway listen`: a receiver to look at webhooks with, and to make them fail."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import click

from webhooks import VerificationError, Webhook

MAX_BODY = 2**20


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=9000, show_default=True, help="0 takes any free one.")
@click.option(
    "--secret", "secrets", multiple=True, help="whsec_… to check signatures with; may be given several times."
)
@click.option("--status", default=204, show_default=True, type=click.IntRange(200, 599), help="What to answer.")
def command(host: str, port: int, secrets: tuple[str, ...], status: int) -> None:
    """Receive webhooks on this machine, check their signatures, and show them."""
    try:
        webhook = Webhook(*secrets) if secrets else None
        server = ThreadingHTTPServer((host, port), _receiver(webhook, status))
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Listening on http://{host}:{server.server_port}, answering {status}. Ctrl+C ends.")
    sys.stdout.flush()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        click.echo()
    finally:
        server.server_close()


def _receiver(webhook: Webhook | None, status: int) -> type[BaseHTTPRequestHandler]:
    class Receiver(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(min(length, MAX_BODY))
            answer, note = _judged(webhook, status, body, dict(self.headers.items()))
            self.send_response(answer)
            self.send_header("content-length", "0")
            self.end_headers()
            click.echo(f"{answer}  {self.headers.get('webhook-id', 'no webhook-id')}  {note}\n     {_shown(body)}")
            sys.stdout.flush()

        def log_message(self, *_: Any) -> None:  # noqa: ANN401 - http.server's signature
            """It prints a line of its own for each."""

    return Receiver


def _judged(webhook: Webhook | None, status: int, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    if webhook is None:
        return status, "signature not checked (no --secret)"
    try:
        webhook.verify(body, headers)
    except VerificationError as error:
        return 401, f"refused: {error}"
    return status, "signature good"


def _shown(body: bytes) -> str:
    try:
        return json.dumps(json.loads(body), ensure_ascii=False)
    except ValueError:
        return repr(body[:200])
