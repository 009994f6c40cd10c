"""The audit accepts correct entries of every movement, and reports wrong and missing entries."""

from types import SimpleNamespace

import msgspec
import pytest

from cli.simulate.schedule import deliveries
from ledger.events import Reading
from ledger.lifecycle import LIFECYCLE
from ledger.verification.differences import DifferenceKind
from ledger.verification.journal_audit import JournalAudit, differing
from ledger.verification.truth import Truth
from ledger.wire import ENTRIES
from tests.ledger.pipeline import Pipeline

MOVEMENTS = {"capture", "replacement", "refund_reversal", "dispute", "dispute_outcome"}


@pytest.fixture(scope="module")
def folded():
    """Return the ``Truth`` of a simulation's log, and the entries that a fold of the log posts."""
    truth = Truth(Reading(rules=LIFECYCLE), None, lambda _key: 0)
    records = [
        SimpleNamespace(
            key=each.event_id.encode(),
            value=each.body,
            partition=0,
            offset=number,
            timestamp=1_796_000_000_000 + number,
            headers=[],
        )
        for number, each in enumerate(deliveries(4, 1500, "lifecycle"))
    ]
    result = truth.read(0, records)
    truth.settled = {0: len(records)}
    pipeline = Pipeline()
    pipeline.fold([event] for event in result.events)
    assert {each.movement for each in pipeline.entries.values()} == {None, *MOVEMENTS}
    return truth, pipeline.entries


def audited(truth, entries):
    audit = JournalAudit(truth)
    for entry in entries:
        audit.read(entry.entry_id.encode(), ENTRIES.encode(entry))
    found = list(audit.differences(truth.facts))
    return found, list(differing(audit.balances()))


def test_every_entry_of_a_lifecycle_is_accepted_and_every_balance_is_correct(folded):
    truth, entries = folded
    assert audited(truth, entries.values()) == ([], [])


@pytest.mark.parametrize("movement", sorted(MOVEMENTS))
def test_a_missing_entry_of_each_kind_of_movement_is_named(folded, movement):
    truth, entries = folded
    lost = next(
        each
        for each in entries.values()
        if each.movement == movement
        and each.reverses is None
        and f"{each.entry_id}/reversal" not in entries
        and each.postings[0].amount
        and each.postings[0].account != each.postings[1].account
    )
    left = [each for each in entries.values() if each is not lost]
    found, balances = audited(truth, left)
    assert [each.kind for each in found] == [DifferenceKind.ENTRY_MISSING]
    assert lost.entry_id in found[0].subject
    assert len(balances) == 2


@pytest.mark.parametrize("movement", sorted(MOVEMENTS))
def test_an_entry_is_reported_if_it_names_an_event_that_is_not_among_its_facts(folded, movement):
    truth, entries = folded
    entry = next(each for each in entries.values() if each.movement == movement)
    forged = msgspec.structs.replace(entry, other_event_ids=(*entry.other_event_ids, "evt_no"))
    found, _ = audited(truth, [*entries.values(), forged])
    assert {each.kind for each in found} == {DifferenceKind.ENTRY_DIFFERS}
