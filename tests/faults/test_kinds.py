"""The kinds of faults that a stage can have, and the sequence in which a seed draws them."""

from types import SimpleNamespace

import pytest

from faults.injections import KINDS
from faults.run import plan

CREDENTIALS = ("password changed", "certificates renewed")


def everything() -> SimpleNamespace:
    """Return a stage for every kind of fault, except that its brokers demand no credentials."""
    worker, extra = SimpleNamespace(disk=True), SimpleNamespace(clock=True)
    return SimpleNamespace(
        workers=[worker, worker],
        extras=[extra],
        ingest=extra,
        brokers=[1, 2, 3],
        credentials=None,
    )


def test_without_the_option_for_credentials_a_seed_draws_the_faults_that_it_drew_before():
    """`docs/guarantees.md` quotes results by seed, with the commit at which they were drawn."""
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
def test_only_a_secured_stage_has_the_faults_that_change_credentials(describe, secured):
    stage = describe(2, secured=secured)
    missing = {kind.name: kind.missing(stage) for kind in KINDS if kind.takes_credentials}
    needed = None if secured else "brokers that demand credentials (--secured)"
    assert missing == dict.fromkeys(CREDENTIALS, needed)
