"""Generates the reference: commands, topics, alarms, and the names that the ledger reports.

Input: the typer application, the ledger's declarations, the words of its web page, and the rules
for Prometheus. Output: pages and tables in Markdown. Except for the introductions, their text comes
from the input.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer.main
import yaml

from cli.main import app
from cli.settings_table import variables
from ledger.topics import (
    IN_SYNC,
    TABLES,
    Topic,
    TopicNames,
    TopicSetting,
    all_topics,
    changelog_name,
)
from ledger.verification.remedies import REMEDIES, Remedy
from website.markdown import table

_ALERTS: Final = Path(__file__).parents[1] / "deploy" / "prometheus" / "alerts.yaml"
_WORDS: Final = Path(__file__).parents[1] / "processors" / "page" / "words.json"
_GROUP: Final = "plexy-ledger"
_DAY_MS: Final = 24 * 3600 * 1000
_RECORD: Final = TopicNames().made_with(4)
_LOG_RECORD: Final = TopicNames().log_record("<id>")
_TOPICS_RECORD: Final = TopicNames().topics_record(["<ids>"])
_ACCEPTED: Final = {"the same": "nothing", "no less": "more", "any": "any value"}

_COMMANDS: Final = """\
# Commands

This page shows the text of `plexy-ledger COMMAND --help`. All commands have the same exit codes: 0
for success, 1 for a failure or a difference, 2 for a wrong argument or setting, 130 for an
interruption.
"""
_TOPICS: Final = """\
# Topics

`plexy-ledger topics` creates these topics, and `plexy-ledger topics --check` compares existing
topics with this page. All topics have `LEDGER_PARTITIONS` partitions, a number that never changes,
and `LEDGER_TOPIC_PREFIX` before their names. [How it works](../architecture.md#topics) describes
the topics' records, and the names of a second version's topics.
"""


def commands() -> str:
    """Return the page of the commands, with the `--help` of each command."""
    group = typer.main.get_command(app)
    sections = (f"\n## {name}\n\n{_command(name, each)}\n" for name, each in _leaves(group))
    return _COMMANDS + "".join(sections)


def alarms() -> str:
    """Return the table of the alarms, with a link from each alarm to its section of the docs."""
    groups = yaml.safe_load(_ALERTS.read_text(encoding="utf-8"))["groups"]
    rows = [
        (f"[`{rule['alert']}`]({text['runbook'].removeprefix('docs/')})", text["description"])
        for group in groups
        for rule in group["rules"]
        for text in [rule["annotations"]]
    ]
    return "\n".join(table(("Alarm", "Meaning, and what to do"), rows))


def anomalies() -> str:
    """Return the table of the anomalies, in the words of the web page."""
    rows = [
        (f"`{name}`", words["means"], words["todo"])
        for name, words in _words()["anomalies"].items()
    ]
    return "\n".join(table(("Anomaly", "Meaning", "What to do"), rows))


def reasons() -> str:
    """Return the table of the reasons for rejections, in the words of the web page."""
    rows = [
        (f"`{name}`", words["means"], words["todo"]) for name, words in _words()["reasons"].items()
    ]
    return "\n".join(table(("Reason", "Meaning", "What to do"), rows))


def differences() -> str:
    """Return the table of the kinds of differences; kinds with the same meaning share a row."""
    kinds: dict[Remedy, list[str]] = {}
    for kind, remedy in REMEDIES.items():
        kinds.setdefault(remedy, []).append(f"`{kind}`")
    rows = [(", ".join(alike), each.meaning, each.action) for each, alike in kinds.items()]
    return "\n".join(table(("Kind", "Meaning", "What to do"), rows))


def topics() -> str:
    """Return the page of the topics: their names in version 1, and their settings."""
    names = TopicNames()
    meanings = {
        changelog_name(_GROUP, table): f"The records from which the table `{table}` is recovered."
        for table in TABLES
    }
    for attribute, kind in vars(TopicNames).items():
        if isinstance(kind, property):
            meanings[getattr(names, attribute)] = (kind.__doc__ or "").partition("\n")[0]
    meanings[_RECORD] = "No records; the topic's name records the ledger's number of partitions."
    meanings[_LOG_RECORD] = "No records; the topic's name records the id of the log of record."
    meanings[_TOPICS_RECORD] = "No records; the topic's name records the ids of the other topics."
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
    """Return the table of the topics' settings: the values, the topics that have them, and why."""
    described = _described()
    topics: dict[TopicSetting, list[str]] = {}
    for topic in described:
        for setting in topic.settings(1):
            topics.setdefault(setting, []).append(f"`{topic.name}`")
    rows = [
        (
            f"`{setting.name}`",
            "`LEDGER_MIN_INSYNC_REPLICAS`" if setting.name == IN_SYNC else f"`{setting.value}`",
            _ACCEPTED[setting.accepts],
            "all" if len(names) == len(described) else ", ".join(names),
            setting.why,
        )
        for setting, names in sorted(topics.items(), key=lambda each: each[0].name)
    ]
    head = ("Setting", "Created with", "Also accepted", "Topics", "Why")
    return "\n".join(table(head, rows)).strip()


def _described() -> list[Topic]:
    records = (_RECORD, _LOG_RECORD, _TOPICS_RECORD)
    return [*all_topics(TopicNames(), _GROUP), *(Topic(name=each) for each in records)]


def _kept(topic: Topic) -> str:
    if topic.cleanup_policy == "compact":
        return "the last record of each key"
    return "forever" if topic.retention_ms < 0 else f"{topic.retention_ms // _DAY_MS} days"


def _words() -> Any:
    return json.loads(_WORDS.read_text(encoding="utf-8"))


def _leaves(group: Any, *before: str) -> Iterator[tuple[str, Any]]:
    """Yield each command with its full name, including the commands of groups."""
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
