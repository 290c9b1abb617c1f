"""How is the table of commands a command line, without importing them?"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from leaven.cli import COMMANDS, PANELS

_COMPLETION = ("install_completion", "show_completion")


class LazyCommands(TyperGroup):
    """The commands of the table, each known by name and help until it is the one that was asked for."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for panel, commands in PANELS.items():
            for name, (_, line) in commands.items():
                self.commands[name] = TyperCommand(name, help=line, rich_help_panel=panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that `args` begin with, imported now, and the arguments that are left for it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if command is None or name is None else load_command(name), rest


def load_command(name: str) -> Any:
    """Return the command `name` of the table, from its module's `app`."""
    module, line = COMMANDS[name]
    command = get_command(import_module(module).app)
    command.params = [param for param in command.params if param.name not in _COMPLETION]  # the root has them
    command.help = command.help or line
    return command


def _print_version(asked: bool) -> None:
    if asked:
        from leaven import __version__

        typer.echo(f"leaven {__version__}")
        raise typer.Exit


root = typer.Typer(cls=LazyCommands, no_args_is_help=True, pretty_exceptions_enable=False)


@root.callback()
def leaven(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Keeps a production model fresh and proves every update in production before people depend on it."""


def run(arguments: Sequence[str]) -> None:
    """Run the command that `arguments` name; leaves by SystemExit, or with the command's own error."""
    get_command(root)(args=list(arguments), prog_name="leaven")
