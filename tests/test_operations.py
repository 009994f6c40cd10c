"""The docs explain each message that an operator may see, and name the remedy."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from ingest.answers import STATUS
from ledger.payment_documents import Anomaly
from ledger.rejections import Reason
from ledger.verification.differences import DifferenceKind
from ledger.verification.remedies import REMEDIES

_ROOT = Path(__file__).parent.parent
_CHECKS = (_ROOT / "docs" / "operations.md").read_text()
_TROUBLES = (_ROOT / "docs" / "troubleshooting.md").read_text()
_PROGRAMS = "".join(
    file.read_text()
    for folder in ("processors", "ingest", "runtime")
    for file in (_ROOT / folder).rglob("*.py")
)
# These exceptions end a program. The subtracted exceptions are internal and are never shown.
_ENDINGS = {*re.findall(r"class (\w+Error)\(", _PROGRAMS), "TopicsError", "AnotherLogError"} - {
    "BatchRefusedError",
    "ChunkTooLargeError",
    "LogUnavailableError",
    "LogUnreadableError",
    "ProblemError",
    "RevokedError",
    "TooManyReadingsError",
    "TooMuchError",
    "TooMuchReadError",
    "UnpackError",
    "_RefusedError",
    "_RewrittenError",
}
_LINES = r'log\.(?:warning|error|critical|exception)\(\s*"(?:%d )?([^";%]+)'
# The line "the worker ends" is left out, because its reason is always one of the errors above.
_LOGGED = {*re.findall(_LINES, _PROGRAMS)} - {"the worker ends"}
_LOOKING = "".join((_ROOT / "cli/status" / name).read_text() for name in ("looks.py", "command.py"))
_PROBLEMS = sorted({*re.findall(r'Problem\("(\w+)"', _LOOKING)})
_OTHERS = {
    "not_ready",
    "rebalancing",
    "being recovered from their changelogs",
    "another worker has this key's partition",
    "being_summed",
    "order_too_large",
    "behind",
    "too_many_waiters",
    "contradicts_log",
    "chunk dropped, its partition was given back",
    *(code for code, status in STATUS.items() if status == 503),
}


def test_every_kind_of_difference_has_a_meaning_and_a_remedy():
    assert set(REMEDIES) == set(DifferenceKind)


@pytest.mark.parametrize(
    ("kind", "names"), [("anomalies", get_args(Anomaly)), ("reasons", [*Reason])]
)
def test_every_anomaly_and_every_reason_has_a_meaning_and_a_remedy(kind, names):
    words = json.loads((_ROOT / "processors" / "page" / "words.json").read_text())[kind]
    assert sorted(words) == sorted(names)
    assert all(
        each["means"].endswith(".") and each["todo"].endswith(".") for each in words.values()
    )


@pytest.mark.parametrize("name", _PROBLEMS)
def test_every_problem_of_status_has_a_line_with_its_meaning(name):
    """The remedy is in the detail that `status` prints."""
    (row,) = [line for line in _CHECKS.splitlines() if line.startswith(f"| `{name}` |")]
    assert [bool(cell.strip()) for cell in row.split("|")[1:-1]] == [True, True]


@pytest.mark.parametrize("said", sorted(_ENDINGS | _LOGGED | _OTHERS))
def test_every_message_of_a_worker_or_ingress_has_a_line_with_its_remedy(said):
    rows = [line.split("|") for line in _TROUBLES.splitlines() if line.startswith("| ")]
    matching = [row for row in rows if said in row[1]]
    assert matching
    assert all(cell.strip() for row in matching for cell in row[1:4])


def texts(file: Path) -> Iterator[str]:
    """Yield the strings of a module, with "…" for each value that is inserted at run time."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = (each.value if isinstance(each, ast.Constant) else "…" for each in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.replace("%s", "…")


_TEXTS = [
    text
    for folder in ("cli", "processors", "ingest", "runtime")
    for file in (_ROOT / folder).rglob("*.py")
    for text in texts(file)
]
_QUOTED = sorted(
    {quoted for line in _TROUBLES.splitlines() for quoted in re.findall('"([^"]+)"', line)}
)


@pytest.mark.parametrize("quoted", _QUOTED)
def test_every_message_that_the_page_quotes_is_in_a_program(quoted):
    assert any(quoted in text for text in _TEXTS)


def test_a_message_that_no_program_has_is_not_found():
    assert "has … partitions, but this ledger has …" in _QUOTED
    assert not any("has … partitions, but that ledger has …" in text for text in _TEXTS)


def test_the_programs_contain_the_texts_that_are_looked_up():
    assert {"behind", "no_answer"} <= {*_PROBLEMS}
    assert {"LostRecordsError", "RecordTooLargeError", "InterruptedWorkError"} <= _ENDINGS
    assert {"fenced", "rejected", "chunks did not finish in time"} <= _LOGGED
    assert all(said in _PROGRAMS for said in _OTHERS)
