"""The audit of the journal reports each wrong entry, and each account whose balance is wrong."""

from typing import Any

import msgspec
import pytest

from ledger.journal import REFUNDS, Entry, Posting
from ledger.verification.differences import DifferenceKind
from ledger.verification.journal_audit import JournalAudit, differing
from ledger.wire import ENTRIES
from tests.ledger.examples import success
from tests.ledger.verification.audited import Ledger, example, kinds, new_truth


def _forge(entry: Entry, **changes: Any) -> tuple[bytes, bytes]:
    forged = msgspec.structs.replace(entry, **changes)
    return forged.entry_id.encode(), ENTRIES.encode(forged)


def test_a_forged_entry_is_reported_with_the_accounts_whose_balances_it_makes_wrong():
    ledger = example()
    entry = ledger.pipeline.entries["payment/pay_1/evt_1"]
    ledger.entries.append(_forge(entry, entry_id="payment/pay_1/evt_9", event_id="evt_9"))
    found = {difference.kind: difference for difference in ledger.differences()}
    assert found.keys() == {DifferenceKind.ENTRY_UNEXPLAINED, DifferenceKind.BALANCE_DIFFERS}
    assert found[DifferenceKind.ENTRY_UNEXPLAINED].subject == "entry payment/pay_1/evt_9"
    assert [str(each) for each in ledger.differences()][1:] == [
        f"balance_differs  account {account}: expected {log} by the log, got {got} in the journal"
        for account, log, got in (
            ("assets:plexy KZT", 480, 980),
            ("income:sales KZT", -580, -1080),
        )
    ]


def test_an_entry_with_different_money_under_a_known_id_is_reported():
    ledger = example()
    entry = ledger.pipeline.entries["refund/pay_1/re_1/evt_2"]
    other = (Posting(REFUNDS, 90, "KZT"), Posting("assets:elsewhere", -90, "KZT"))
    ledger.entries.append(_forge(entry, postings=other))
    found = [each for each in ledger.differences() if each.kind != DifferenceKind.BALANCE_DIFFERS]
    assert [(each.kind, each.subject) for each in found] == [
        (DifferenceKind.ENTRY_DIFFERS, "entry refund/pay_1/re_1/evt_2")
    ]
    assert found[0].detail == (
        "expected income:refunds 100 KZT and assets:plexy -100 KZT, "
        "got income:refunds 90 KZT and assets:elsewhere -90 KZT"
    )


def test_an_entry_that_does_not_balance_is_reported():
    ledger = example()
    key, value = _forge(ledger.pipeline.entries["payment/pay_1/evt_1"])
    ledger.entries.append((key, value.replace(b'"amount":500', b'"amount":501')))
    assert ledger.entries[-1][1] != value
    (found,) = ledger.differences()
    assert (found.kind, found.detail) == (
        DifferenceKind.ENTRY_DIFFERS,
        "it can't be read, or does not balance",
    )


def test_an_entry_under_a_wrong_key_is_reported():
    ledger = example()
    ledger.entries.append((b"another", ledger.entries[0][1]))
    assert DifferenceKind.ENTRY_DIFFERS in kinds(ledger)


@pytest.mark.parametrize("gone", range(5))
def test_a_missing_entry_is_reported(gone):
    ledger = example()
    # The entries are the entry of a payment, the entry of a refund of this payment, the entry of a
    # second payment, the reversal of the second payment's entry, and the entry that replaces it.
    assert len(ledger.entries) == 5
    del ledger.entries[gone]
    found = kinds(ledger)
    assert DifferenceKind.BALANCE_DIFFERS in found
    assert {DifferenceKind.ENTRY_MISSING, DifferenceKind.ENTRY_DIFFERS} & set(found)


def test_repeated_entries_change_nothing():
    ledger = example()
    ledger.entries *= 3
    assert ledger.differences() == []


def test_money_that_is_posted_twice_is_reported():
    ledger = Ledger([success("evt_1", 1, 5), success("evt_2", 2, 5)])
    (first,) = ledger.entries
    other = Ledger([success("evt_2", 2, 5), success("evt_1", 1, 5)])
    event = next(e for e in ledger.truth().facts["pay_1"].values() if e.event_id not in str(first))
    entry = next(iter(other.pipeline.entries.values()))
    second = _forge(
        entry,
        entry_id=f"payment/pay_1/{event.event_id}",
        event_id=event.event_id,
        created=event.created,
        partition=event.partition,
        offset=event.offset,
    )
    ledger.entries.append(second)
    found = ledger.differences()
    assert sorted({each.kind for each in found}) == [
        DifferenceKind.BALANCE_DIFFERS,
        DifferenceKind.ENTRY_DIFFERS,
    ]
    assert "standing: evt_1, evt_2" in str(found[0])


def test_an_entry_of_a_later_fact_is_reported_even_if_the_earliest_fact_has_the_same_money():
    """If the entry of evt_2 were in the same journal, the money would count twice."""
    late_first = [success("evt_1", 2, 5), success("evt_2", 1, 5)]
    ledger = Ledger(late_first)
    stays = ledger.entries[0][1]
    ledger.entries = [each for each in ledger.entries if each[1] == stays]
    (found,) = ledger.differences()
    assert found.kind is DifferenceKind.ENTRY_DIFFERS
    assert "standing: evt_1; reversed" in found.detail
    assert "expected to stand: evt_2" in found.detail


def test_an_entry_that_was_read_before_its_event_is_judged_again():
    ledger, truth = example(), new_truth()
    truth.settled = ledger.log.ends()
    journal = JournalAudit(truth)
    for key, value in ledger.entries:
        journal.read(key, value)
    assert len(list(journal.differences([]))) == len(ledger.entries)
    for partition, records in ledger.log.partitions.items():
        truth.read(partition, records)
    assert list(journal.differences(truth.facts)) == []
    assert list(differing(journal.balances())) == []
    assert journal.entries == len(ledger.entries)
