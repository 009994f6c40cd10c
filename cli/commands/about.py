"""The commands that describe the program itself."""

import platform
from collections.abc import Iterator
from importlib import metadata
from typing import Annotated

import typer

from cli.commands.declare import command, console


@command("plexy-ledger settings", "plexy-ledger settings --markdown")
def settings(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="print the table in Markdown")
    ] = False,
) -> None:
    """List every setting, and the commands that read it."""
    from cli.settings_table import as_markdown, as_table

    if markdown:
        typer.echo(as_markdown())
    else:
        console().print(as_table())


@command("plexy-ledger version")
def version() -> None:
    """Print the versions that a bug report needs."""
    for name, number in _versions():
        typer.echo(f"{name:<16} {number}")


def _versions() -> Iterator[tuple[str, str]]:
    """Yield versions from the packages' metadata, because importing the packages takes seconds."""
    from cli.kafka.distribution import KAFKA_VERSION

    yield "plexy-ledger", _installed("plexy-ledger")
    yield "python", platform.python_version()
    yield "faust-streaming", _installed("faust-streaming")
    yield "aiokafka", _installed("aiokafka")
    yield "embedded Kafka", KAFKA_VERSION


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
