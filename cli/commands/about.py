"""The commands that tell of the program itself."""

from typing import Annotated

import typer

from cli.commands.declare import command, console


@command("plexy-ledger settings", "plexy-ledger settings --markdown")
def settings(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="print the table in Markdown")
    ] = False,
) -> None:
    """List every setting, and which commands read it."""
    from cli.settings_table import as_markdown, as_table

    if markdown:
        typer.echo(as_markdown())
    else:
        console().print(as_table())


@command("plexy-ledger version")
def version() -> None:
    """Print the versions that a bug report needs."""
    from cli.versions import versions

    for name, number in versions():
        typer.echo(f"{name:<16} {number}")
