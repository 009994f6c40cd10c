"""The reference pages that are made from the program: commands, topics.

In: the typer application, the topics that the ledger describes. Out: pages in
Markdown. Never: a sentence that the program does not say itself, but for the page's first lines.
"""

from collections.abc import Iterator
from typing import Any, Final

import typer.main

from cli.main import app
from cli.settings_table import variables
from ledger.topics import (
    TABLES,
    Topic,
    TopicNames,
    TopicSetting,
    all_topics,
    changelog_name,
    min_insync_replicas,
)
from website.markdown import table

_GROUP: Final = "plexy-ledger"
_DAY_MS: Final = 24 * 3600 * 1000
_RECORD: Final = TopicNames().made_with(4)
_ACCEPTED: Final = {"the same": "nothing", "no less": "more", "any": "any value"}

_COMMANDS: Final = """\
# Commands

What `plexy-ledger COMMAND --help` says. Exit codes are the same for all: 0 done, 1 failed or
different, 2 a wrong argument or setting, 130 interrupted.
"""
_TOPICS: Final = """\
# Topics

`plexy-ledger topics` creates them, and `plexy-ledger topics --check` compares them with this. All
have `LEDGER_PARTITIONS` partitions, for life, and `LEDGER_TOPIC_PREFIX` before their names. What
their records hold, and what a second version's names are: [how it
works](../architecture.md#topics).
"""


def commands() -> str:
    """Return the page of the commands: what `--help` says of each."""
    group = typer.main.get_command(app)
    sections = (f"\n## {name}\n\n{_command(name, each)}\n" for name, each in _leaves(group))
    return _COMMANDS + "".join(sections)


def topics() -> str:
    """Return the page of the topics: their names in version 1, and how each must be set."""
    names = TopicNames()
    meanings = {
        changelog_name(_GROUP, table): f"What the table `{table}` is recovered from."
        for table in TABLES
    }
    for attribute, kind in vars(TopicNames).items():
        if isinstance(kind, property):
            meanings[getattr(names, attribute)] = (kind.__doc__ or "").partition("\n")[0]
    meanings[_RECORD] = "Without records: its name records the ledger's number of partitions."
    rows = [
        (
            f"`{topic.name}`",
            meanings[topic.name],
            _kept(topic),
            topic.cleanup_policy,
            str(topic.retention_ms),
        )
        for topic in _described()
    ]
    head = ("Topic", "What it is", "Kept", "`cleanup.policy`", "`retention.ms`")
    lines = "\n".join(table(head, rows))
    return f"{_TOPICS}{lines}\n\n## Settings\n\n{topic_settings()}\n"


def topic_settings() -> str:
    """Return the table of the topics' settings: the values, who has them, and why."""
    described = _described()
    least = min_insync_replicas(1)
    topics: dict[TopicSetting, list[str]] = {}
    for topic in described:
        for setting in (*topic.settings, least):
            topics.setdefault(setting, []).append(f"`{topic.name}`")
    rows = [
        (
            f"`{setting.name}`",
            "`LEDGER_MIN_INSYNC_REPLICAS`" if setting is least else f"`{setting.value}`",
            _ACCEPTED[setting.accepts],
            "all" if len(names) == len(described) else ", ".join(names),
            setting.why,
        )
        for setting, names in sorted(topics.items(), key=lambda each: each[0].name)
    ]
    head = ("Setting", "Created with", "What else is right", "Topics", "Why")
    return "\n".join(table(head, rows)).strip()


def _described() -> list[Topic]:
    return [*all_topics(TopicNames(), _GROUP), Topic(name=_RECORD)]


def _kept(topic: Topic) -> str:
    if topic.cleanup_policy == "compact":
        return "the last record of each key"
    return "for ever" if topic.retention_ms < 0 else f"{topic.retention_ms // _DAY_MS} days"


def _leaves(group: Any, *before: str) -> Iterator[tuple[str, Any]]:
    """Yield each command with its name in full, those of groups too."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _leaves(command, *before, name)
        else:
            yield " ".join([*before, name]), command


def _command(name: str, command: Any) -> str:
    context = command.make_context(
        f"plexy-ledger {name}", [], resilient_parsing=True, help_option_names=["--help", "-h"]
    )
    usage = " ".join(command.get_usage(context).split())
    records = [param.get_help_record(context) for param in command.get_params(context)]
    rows = [(f"`{record[0]}`", record[1]) for record in records if record]
    read = ", ".join(f"`{variable}`" for variable in variables(name.partition(" ")[0]))
    lines = [
        *(command.help or "").splitlines(),
        *("", "```text", usage, "```"),
        *table(("Argument or option", "Meaning"), rows),
        *("", "```console", *(f"$ {line}" for line in command.epilog.splitlines()), "```"),
        *("", f"[Settings](../settings.md): {read or 'none'}."),
    ]
    return "\n".join(lines)
