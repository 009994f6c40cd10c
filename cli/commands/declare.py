"""Declares the commands of ``app``.

A command's help shows examples that work, and the settings that the command reads. The command
itself only reads settings and calls one function. It imports that function only when it runs:
importing Faust already takes longer than ``--help`` may take.
"""

import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import typer
from typer.core import TyperCommand

from cli.errors import FAILED

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_WITHOUT_TERMINAL: Final = 130


def _first_word(ctx: Any) -> str:
    """Return the word after ``plexy-ledger``, which identifies the settings of the command.

    For a command of a group, this word is the group's name: a group's commands read the same
    settings.
    """
    while ctx.parent is not None and ctx.parent.parent is not None:
        ctx = ctx.parent
    return str(ctx.info_name)


class _Command(TyperCommand):
    """A command whose help ends with examples and with the command's settings."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, and the names of the settings from the settings classes."""
        from cli.settings_table import variables

        with formatter.section("Examples" if "\n" in (self.epilog or "") else "Example"):
            # The examples are not wrapped, so that they can be pasted.
            for example in (self.epilog or "").splitlines():
                formatter.write(f"  {example}\n")
        with formatter.section("Settings, from the environment"):
            names = variables(_first_word(ctx))
            formatter.write_text(", ".join(names) if names else "none")
        if names:
            formatter.write_paragraph()
            formatter.write_text("`plexy-ledger settings` explains each setting.")


app = typer.Typer(
    name="plexy-ledger",
    help="An event-sourced payment ledger on Kafka: Plexy's webhooks in, provable order state out.",
    epilog="Try it: plexy-ledger demo",
    no_args_is_help=True,
    # Plain help keeps each example on one line, so that it can be copied.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def group(name: str, text: str) -> typer.Typer:
    """Declare a command with subcommands."""
    made = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=text)
    app.add_typer(made, name=name)
    return made


def command(
    *examples: str, within: typer.Typer = app, name: str | None = None
) -> Callable[[Callable[..., bool | None]], Callable[..., None]]:
    """Declare a command, with example lines that work when pasted.

    A command that returns ``False`` has done its work and found a problem; the exit code is 1.
    """

    def declare(run: Callable[..., bool | None]) -> Callable[..., None]:
        @wraps(run)
        def run_and_exit(*args: Any, **options: Any) -> None:
            if run(*args, **options) is False:
                raise typer.Exit(FAILED)

        epilog = "\n".join(examples)
        return within.command(name, cls=_Command, epilog=epilog)(run_and_exit)

    return declare


def console(*, stderr: bool = False) -> "Console":
    """Return a command's console; if there is no terminal, the console has a fixed width."""
    from rich.console import Console

    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(width=None if is_terminal else _WIDTH_WITHOUT_TERMINAL, stderr=stderr)
