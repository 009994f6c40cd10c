"""How a command is declared: with examples that work, and the settings that it reads.

In: functions with typer's annotations. Out: commands of ``app``. Never: a rule or work of their
own: each command reads settings and calls one function. What it needs it imports when it runs:
Faust alone takes longer than ``--help`` may.
"""

import sys
from collections.abc import Callable
from typing import Any, Final, TextIO

import typer
from typer.core import TyperCommand

_WIDTH_WITHOUT_TERMINAL: Final = 130


def _first_word(ctx: Any) -> str:
    """Return what follows `plexy-ledger`: the commands of a group read the same settings."""
    while ctx.parent is not None and ctx.parent.parent is not None:
        ctx = ctx.parent
    return str(ctx.info_name)


class _Command(TyperCommand):
    """A command whose help ends with examples and with the settings that it reads."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples as they are, and the settings from the classes that describe them."""
        from cli.settings_table import variables

        with formatter.section("Examples" if "\n" in (self.epilog or "") else "Example"):
            # Unwrapped: a line that is broken can't be pasted.
            for example in (self.epilog or "").splitlines():
                formatter.write(f"  {example}\n")
        with formatter.section("Settings, from the environment"):
            names = variables(_first_word(ctx))
            formatter.write_text(", ".join(names) if names else "none")
        if names:
            formatter.write_paragraph()
            formatter.write_text("`plexy-ledger settings` says what each one means.")


app = typer.Typer(
    name="plexy-ledger",
    help="An event-sourced payment ledger on Kafka: Plexy's webhooks in, provable order state out.",
    epilog="Try it: plexy-ledger demo",
    no_args_is_help=True,
    # Plain help: examples stay on one line each, so that they can be copied.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def group(name: str, text: str) -> typer.Typer:
    """Declare a command that has commands of its own."""
    made = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=text)
    app.add_typer(made, name=name)
    return made


def command(
    *examples: str, within: typer.Typer = app, name: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare a command, with lines that can be pasted and work."""
    return within.command(name, cls=_Command, epilog="\n".join(examples))


def width(stream: TextIO | None = None) -> int | None:
    """Return how wide tables are: as the terminal, or enough for them in a file or a pipe."""
    return None if (stream or sys.stdout).isatty() else _WIDTH_WITHOUT_TERMINAL
