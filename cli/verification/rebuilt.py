"""Prints the outcome of a rebuild: how the two versions differ, and how to switch.

The text suggests the switch only if the new version agrees with the log.
"""

from collections.abc import Iterator

import msgspec
from rich.console import Console

from cli.printing import counted, line
from cli.verification.auditor import Findings
from cli.verification.comparer import VersionComparison
from cli.verification.findings import show_balances, show_differences
from ledger.topics import all_topics
from ledger.verification.differences import Difference
from ledger.verification.journal_audit import differing
from processors.settings import WorkerSettings


class RebuildOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The findings for both versions; ``old`` is ``None`` if the old version can't be read.

    ``log`` has the faults of the log itself. If the old version was not compared, or was compared
    only in part, ``lacking`` says why.
    """

    log: tuple[Difference, ...]
    new: Findings
    old: Findings | None = None
    comparison: VersionComparison | None = None
    lacking: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether the new version agrees with the log."""
        return not self.of(self.new)

    @property
    def is_equal(self) -> bool:
        """Whether everything was compared, and neither version nor the log has a fault."""
        if self.log or self.lacking or self.old is None or self.comparison is None:
            return False
        return self.is_whole and not self.of(self.old) and not self.comparison.differences

    def of(self, findings: Findings) -> list[Difference]:
        """Return the differences of a version, without the faults of the log."""
        log = set(self.log)
        return [found for found in findings.differences if found not in log]


def show_outcome(
    old: WorkerSettings, new: WorkerSettings, outcome: RebuildOutcome, console: Console
) -> None:
    """Print the comparisons, each difference, and the next step."""
    if outcome.log:
        line(console, "The log of record itself:", "bold")
        show_differences(console, outcome.log)
    show_balances(console, outcome.new.balances, f"Trial balance of version {new.version}")
    if outcome.old is not None and any(differing(outcome.old.balances)):
        # If the rules were changed, the column `log` has the sums by the new rules.
        text = (
            f"This table compares version {old.version} (column `journal`) with the rules "
            f"{new.rules} (column `log`):"
        )
        line(console, text, "bold")
        show_balances(console, outcome.old.balances, f"Trial balance of version {old.version}")
    for version, findings in ((new.version, outcome.new), (old.version, outcome.old)):
        if findings is not None:
            moving = f"payments with unfolded records: {findings.moving:,}"
            text = f"Version {version} was compared with the log of record ({moving}):"
            line(console, text, "bold")
            show_differences(console, outcome.of(findings))
    if outcome.comparison is not None:
        _show_comparison(old.version, new.version, outcome.comparison, console)
    if outcome.lacking:
        line(console, outcome.lacking, "bold red")
    if outcome.is_whole:
        if not outcome.is_equal:
            text = f"Version {new.version} is correct nevertheless: it agrees with the log."
            line(console, text, "bold green")
        line(console, "")
        for text in how_to_switch(old, new):
            line(console, text)
    else:
        text = f"Version {new.version} differs from the log: stay with version {old.version}."
        line(console, text, "bold red")


def _show_comparison(old: int, new: int, comparison: VersionComparison, console: Console) -> None:
    alike = f"{comparison.values:,} values and {comparison.entries:,} entries are equal"
    line(console, f"Version {old} was compared with version {new} ({alike}):", "bold")
    if comparison.moving:
        line(
            console,
            f"{comparison.moving:,} values and entries of payments with unfolded records were left "
            "out",
        )
    if comparison.cancelled:
        count = counted(comparison.cancelled, "entry", "entries")
        line(
            console,
            f"{count} left out, because they are in only one journal and cancel each other",
        )
    show_differences(console, comparison.differences)


def how_to_switch(old: WorkerSettings, new: WorkerSettings) -> Iterator[str]:
    """Yield the lines on how to switch, how to switch back, and how to delete the old version."""
    version = new.version
    kept = {topic.name for topic in all_topics(new.names, new.group_id)}
    yield f"To switch to version {version}:"
    yield f"  workers    stop them, set LEDGER_VERSION={version}, start them; nothing else changes."
    yield f"             A worker with LEDGER_DATA_DIR={old.data_dir} finds its tables there; any"
    yield "             other worker recovers its tables from their changelogs."
    yield "  commands   set LEDGER_VERSION also for run, topics, verify and audit; not for ingress."
    for one, other in (
        (old.names.orders, new.names.orders),
        (old.names.entries, new.names.entries),
    ):
        yield f"  consumers  {one} becomes {other}: read the new topic from its start"
    yield f"To go back, set LEDGER_VERSION={old.version} again: the old version stays unchanged."
    yield f"When you no longer need version {old.version}, you can delete its topics:"
    brokers = ",".join(new.bootstrap_servers)
    topics = [each.name for each in all_topics(old.names, old.group_id) if each.name not in kept]
    # The last topic's name contains the ids of the other topics. In its place, a regular expression
    # is printed, which matches any ids.
    for topic in (*topics, f"'{old.names.topics_record(['[^.]+'])}'"):
        yield f"  kafka-topics.sh --bootstrap-server {brokers} --delete --topic {topic}"
    yield f"Then also delete its tables: {old.group_id}@… in each worker's LEDGER_DATA_DIR."
