"""A rebuild suggests switching to the new version only if the log produces exactly that version."""

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from cli.verification.auditor import Findings
from cli.verification.comparer import VersionComparison
from cli.verification.rebuilt import RebuildOutcome, how_to_switch, show_outcome
from cli.verification.replicas import Disks
from ledger.verification.differences import Difference, DifferenceKind
from processors.settings import WorkerSettings

OLD = WorkerSettings(topic_prefix="shop.", data_dir=Path("data"))
NEW = OLD.of_version(2)
WRONG = Difference(
    kind=DifferenceKind.PAYMENT_DIFFERS, subject="payment pay_1", detail="it can't be read"
)
MISPLACED = Difference(kind=DifferenceKind.RECORD_MISPLACED, subject="record", detail="elsewhere")


def findings(*differences: Difference) -> Findings:
    return Findings(list(differences), balances=[], moving=0, records=0, took_s=0.0, disks=Disks())


def comparison(*differences: Difference) -> VersionComparison:
    return VersionComparison(list(differences), values=9, entries=3, moving=0, cancelled=2)


EQUAL = RebuildOutcome(log=(), new=findings(), old=findings(), comparison=comparison())


def printed(outcome: RebuildOutcome) -> str:
    console = Console(file=io.StringIO(), width=200)
    show_outcome(OLD, NEW, outcome, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_if_the_versions_are_equal_the_output_ends_with_the_steps_of_the_switch():
    text = printed(EQUAL)
    assert EQUAL.is_equal
    assert text.count("No difference") == 3
    assert "correct nevertheless" not in text
    assert "set LEDGER_VERSION=2" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"old": findings(WRONG)},
        {"comparison": comparison(WRONG)},
        {"lacking": "version 1 is behind"},
        {"old": None, "comparison": None, "lacking": "version 1 can't be compared"},
        {"log": (MISPLACED,), "old": findings(MISPLACED), "new": findings(MISPLACED)},
    ],
)
def test_faults_outside_the_new_version_are_shown_and_do_not_prevent_the_switch(changes):
    outcome = msgspec.structs.replace(EQUAL, **changes)
    text = printed(outcome)
    assert (outcome.is_whole, outcome.is_equal) == (True, False)
    assert "Version 2 is correct nevertheless" in text
    assert "set LEDGER_VERSION=2" in text
    assert str(changes.get("lacking", "1 difference\n")) in text


def test_a_new_version_that_differs_from_the_result_of_the_log_is_never_suggested():
    outcome = msgspec.structs.replace(EQUAL, new=findings(WRONG))
    text = printed(outcome)
    assert (outcome.is_whole, outcome.is_equal) == (False, False)
    assert "stay with version 1" in text
    assert "LEDGER_VERSION=2" not in text


def test_only_topics_of_the_old_version_are_listed_for_deletion():
    lines = list(how_to_switch(OLD, NEW))
    deleted = [line.rpartition(" ")[2] for line in lines if "--delete" in line]
    assert deleted == [
        "shop.ledger.events",
        "shop.ledger.payments",
        "shop.ledger.entries",
        "shop.ledger.orders",
        "shop.plexy-ledger-seen-changelog",
        "shop.plexy-ledger-payments-changelog",
        "shop.plexy-ledger-orders-changelog",
        "'shop.ledger.topics-[^.]+'",
    ]
    assert (
        "  consumers  shop.ledger.orders becomes shop.ledger.orders.v2: read the new topic from "
        "its start" in lines
    )
