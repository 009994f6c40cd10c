"""A stage gets only kinds of faults that it supports, and a seed always draws the same faults."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import aiokafka.errors
import pytest

from faults.injections import KINDS
from faults.run import plan

CREDENTIALS = ("password changed", "certificates renewed")


def everything() -> SimpleNamespace:
    """Return a stage that supports all faults except the faults that change credentials."""
    worker, extra = SimpleNamespace(disk=True), SimpleNamespace(clock=True)
    return SimpleNamespace(
        workers=[worker, worker],
        extras=[extra],
        ingest=extra,
        brokers=[1, 2, 3],
        credentials=None,
    )


def test_without_dash_dash_secured_a_seed_still_draws_the_same_faults():
    """`docs/guarantees.md` quotes runs by seed, so each seed must always draw the same faults."""
    stage = everything()
    kinds = [kind for kind in KINDS if not kind.missing(stage)]
    assert [kind.name for drawn in plan(kinds, 8, 1) for kind in drawn] == [
        "worker's table damaged",
        "compression changed",
        "rebalances in a row",
        "worker's tables older",
        "network slow",
        "worker frozen",
        "broker killed",
        "worker's clock steps",
    ]


@pytest.mark.parametrize("secured", [False, True])
def test_only_a_secured_stage_supports_the_faults_that_change_credentials(describe, secured):
    stage = describe(2, secured=secured)
    missing = {kind.name: kind.missing(stage) for kind in KINDS if kind.takes_credentials}
    needed = None if secured else "brokers that demand credentials (--secured)"
    assert missing == dict.fromkeys(CREDENTIALS, needed)


ROOT = Path(__file__).parents[2]
WAITS = ("await_end", "expect_logged", "exhaust")


def expected_words() -> Iterator[str]:
    """Yield each text that a fault expects in a program's log, except the names of settings."""
    for file in sorted((ROOT / "faults").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in WAITS:
                words = [each.value for each in node.args if isinstance(each, ast.Constant)]
                yield from (word for word in words if not word.startswith("LEDGER_"))


@pytest.fixture(scope="module")
def programs() -> str:
    """Return the programs' source; adjacent string literals are joined into one literal."""
    files = [file for name in ("processors", "runtime") for file in (ROOT / name).rglob("*.py")]
    return re.sub(r'"\s+f?"', "", "\n".join(file.read_text() for file in files))


@pytest.mark.parametrize("word", sorted(set(expected_words())))
def test_every_text_that_a_fault_expects_is_logged_by_a_program(programs: str, word: str):
    """If only the program changed a message, a run would report that the message is missing."""
    assert word in programs or hasattr(aiokafka.errors, word)
