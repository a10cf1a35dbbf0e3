"""`gateway asyncapi`: write the AsyncAPI document, which says of streams what OpenAPI cannot."""

from pathlib import Path

import click

from gateway.http.asyncapi import FILE, text


@click.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=FILE, show_default=True, help="- is standard output."
)
def command(output: Path) -> None:
    """Write the AsyncAPI document."""
    if str(output) == "-":
        click.echo(text(), nl=False)
    else:
        output.write_text(text(), encoding="utf-8")
