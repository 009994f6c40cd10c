"""Writes the files of ``docs/events``, unless a schema breaks readers of its released version."""

from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from cli.contract.asyncapi import FILE, document
from cli.contract.schemas import VERSIONS, breaking_changes, rules_schema, schemas

FOLDER: Final = Path(__file__).parents[2] / "docs" / "events"
RELEASED: Final = "released"
RULES: Final = "rules.schema.json"


def contract() -> dict[str, bytes]:
    """Return every file's content, by file name."""
    contents = {**schemas(), FILE: document(), RULES: rules_schema()}
    return {name: _written(content) for name, content in contents.items()}


def broken(folder: Path) -> list[str]:
    """Return the changes that would break readers of the folder's released schemas.

    A released schema of an earlier version is not compared. Its file stays, because older releases
    of the ledger still write records of that version.
    """
    now, found = schemas(), []
    for file in sorted((folder / RELEASED).glob("*.json")):
        if file.name in now:
            released = msgspec.json.decode(file.read_bytes())
            found += [f"{file.name}: {each}" for each in breaking_changes(released, now[file.name])]
        elif not _is_superseded(file.name):
            found.append(f"{file.name}: the schema was released, but is gone")
    return found


def _is_superseded(name: str) -> bool:
    topic, _, rest = name.rpartition(".v")
    return topic in VERSIONS and int(rest.partition(".")[0]) < VERSIONS[topic]


def main(
    release: Annotated[
        bool,
        typer.Option(
            "--release", help="mark the schemas as released, so that changes must stay compatible"
        ),
    ] = False,
    folder: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="the folder of the files")
    ] = FOLDER,
) -> None:
    """Write the schemas and the AsyncAPI document of the published topics.

    If a schema would break readers of its released version, nothing is written, and the exit code
    is 1. docs/events/README.md says how to make a new version of a schema.
    """
    if found := broken(folder):
        for each in found:
            typer.echo(each, err=True)
        raise typer.Exit(1)
    files = contract()
    for file in folder.glob("*.json"):
        if file.name not in files:
            file.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
        typer.echo(folder / name)
    if release:
        (folder / RELEASED).mkdir(exist_ok=True)
        for name in schemas():
            (folder / RELEASED / name).write_bytes(files[name])
            typer.echo(folder / RELEASED / name)


def _written(content: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


if __name__ == "__main__":
    typer.run(main)
