"""Lists the settings with their meanings, their defaults and the commands that read them.

The table is built from the settings classes, for a terminal or for the documentation. It shows
defaults, but never a value from the environment.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import Final

import msgspec
from rich.table import Table
from rich.text import Text

from cli.settings import (
    AccountingSettings,
    AuditSettings,
    BrokerSettings,
    DemoSettings,
    JudgeSettings,
    ProveSettings,
    RunSettings,
    SendSettings,
    SimulateSettings,
    StatusSettings,
    VerifySettings,
)
from ingest.settings import IngestSettings
from processors.settings import WorkerSettings
from runtime.kafka.topics import TopicSettings
from runtime.settings import Settings, describe

READ_BY: Final[Mapping[str, tuple[type[Settings], ...]]] = MappingProxyType(
    {
        "ingest": (IngestSettings,),
        "worker": (WorkerSettings,),
        "topics": (TopicSettings,),
        "kafka": (BrokerSettings,),
        "run": (IngestSettings, WorkerSettings, RunSettings),
        "demo": (DemoSettings,),
        "send": (SendSettings,),
        "simulate": (SimulateSettings,),
        "status": (StatusSettings,),
        "verify": (VerifySettings,),
        "prove": (ProveSettings,),
        "audit": (AuditSettings,),
        "rejected": (JudgeSettings,),
        "export-log": (TopicSettings,),
        "import-log": (TopicSettings,),
        "export": (AccountingSettings,),
        "reconcile": (AccountingSettings,),
        "rebuild": (WorkerSettings,),
    }
)


class Row(msgspec.Struct, frozen=True):
    """One setting, and the commands that read it."""

    variable: str
    default: str
    text: str
    commands: tuple[str, ...]


def variables(command: str) -> list[str]:
    """Return the names of the settings that a command reads; ``doctor`` reads all of them."""
    kinds = chain(*READ_BY.values()) if command == "doctor" else READ_BY.get(command, ())
    found = {each.variable: None for kind in kinds for each in describe(kind)}
    return list(found)


def rows() -> Iterator[Row]:
    """Yield every setting once, in the sequence of ``READ_BY`` and of the classes' fields."""
    readers: dict[str, list[str]] = {}
    first: dict[str, tuple[str, str]] = {}
    for command, kinds in READ_BY.items():
        for kind in kinds:
            for variable, default, text in describe(kind):
                first.setdefault(variable, (default, text))
                commands = readers.setdefault(variable, [])
                if command not in commands:
                    commands.append(command)
    for variable, (default, text) in first.items():
        yield Row(variable, default, text, tuple(readers[variable]))


def as_table() -> Table:
    """Return the settings for a terminal."""
    table = Table("variable", "default", "meaning", "read by")
    for row in rows():
        cells = (row.variable, row.default, row.text, ", ".join(row.commands))
        table.add_row(*(Text(cell) for cell in cells))
    table.columns[0].no_wrap = True
    return table


def as_markdown() -> str:
    """Return the settings as a table in Markdown."""
    lines = ["| Variable | Default | Meaning | Read by |", "|---|---|---|---|"]
    for row in rows():
        default = f"`{row.default}`" if row.default else ""
        text = row.text.replace("|", "\\|")
        lines.append(f"| `{row.variable}` | {default} | {text} | {', '.join(row.commands)} |")
    return "\n".join(lines)
