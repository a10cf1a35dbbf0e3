"""The command `gateway`. One module a subcommand, imported only when it is called."""

import gc
import importlib

import click

from gateway.version import __version__

COMMANDS = {
    "serve": "Run the gateway.",
    "copy": "Take a SQLite gateway over to PostgreSQL.",
    "restored": "Say that the database comes from a backup.",
    "listen": "Receive webhooks on this machine, check their signatures, and show them.",
    "bench": "Measure how fast it is, beside what one would do without it.",
    "health": "Ask a running gateway whether it is ready; exit with 0 if so.",
    "openapi": "Write the OpenAPI document.",
    "asyncapi": "Write the AsyncAPI document, which describes the streams.",
}


class _OneModuleEach(click.Group):
    """`gateway listen` must not wait for a web framework to be imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        gc.disable()
        command: click.Command = importlib.import_module(f"gateway.cli.{cmd_name}").command
        gc.freeze()  # it stays: to look for garbage among all of it takes a tenth of a second, every time
        gc.enable()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_OneModuleEach, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gateway")
def main() -> None:
    """Arrw Gateway: one durable log behind event streams and signed webhooks.

    Settings come from the environment (GATEWAY_…); README.md lists them.
    """
