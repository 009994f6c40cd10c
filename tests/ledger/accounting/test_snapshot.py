"""A journal snapshot lists each entry once, always sorted, and finds incomplete corrections."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.accounting.snapshot import JournalFaultError, JournalSnapshot
from ledger.journal import Subject, balances
from ledger.payments import Payment, fold_payments, standing_of
from ledger.wire import ENTRIES
from tests.ledger.examples import refund, success
from tests.strategies import histories


def records_of(events):
    """Return the records that a worker writes for events that arrive in this sequence."""
    entries = fold_payments(events, {}).entries
    return [(entry.entry_id.encode(), ENTRIES.encode(entry)) for entry in entries]


def snapshot_of(records):
    snapshot = JournalSnapshot()
    for key, value in records:
        snapshot.read(key, value)
    return snapshot


# Three successes of a payment arrive, and the latest success arrives first. So the journal must be
# corrected twice before it counts the earliest success.
LATE, EARLIER, EARLIEST = (success(f"evt_{n}", n, amount=n, offset=9 - n) for n in (3, 2, 1))
CORRECTED = records_of([LATE, EARLIER, refund(), EARLIEST])


@given(histories(), st.data())
def test_reordered_and_repeated_records_change_nothing(events, data):
    records = records_of(events)
    again = data.draw(st.lists(st.sampled_from(records))) if records else []
    shuffled = data.draw(st.permutations(records + again))
    one, other = snapshot_of(records), snapshot_of(shuffled)
    assert other.ordered() == one.ordered()
    assert other.standing() == one.standing()
    assert len(one.ordered()) == len(records)


@given(histories())
def test_entries_are_sorted_by_time_and_a_reversal_directly_follows_the_entry_it_reverses(events):
    ordered = snapshot_of(records_of(events)).ordered()
    assert [entry.created for entry in ordered] == sorted(entry.created for entry in ordered)
    places = {entry.entry_id: place for place, entry in enumerate(ordered)}
    reversals = [entry for entry in ordered if entry.reverses]
    assert all(places[each.reverses] == places[each.entry_id] - 1 for each in reversals)


@given(histories())
def test_the_standing_entries_belong_to_the_standing_facts_and_sum_to_the_balances(events):
    snapshot = snapshot_of(records_of(events))
    facts: dict[str, dict] = {}
    for event in events:
        facts.setdefault(event.payment_id, {})[event.event_id] = event
    expected = {}
    for payment_id, each in facts.items():
        expected |= standing_of(Payment(payment_id, each)).facts
    standing = snapshot.standing()
    assert {subject: entry.event_id for subject, entry in standing.items()} == {
        subject: facts[0].event_id for subject, facts in expected.items()
    }
    money = {key: amount for key, amount in balances(snapshot.entries).items() if amount}
    stood = balances({entry.entry_id: entry for entry in standing.values()})
    assert money == {key: amount for key, amount in stood.items() if amount}


@given(histories())
def test_a_complete_journal_has_no_incomplete_correction(events):
    assert snapshot_of(records_of(events)).cut_corrections() == set()


def test_each_missing_part_of_a_correction_is_noticed():
    assert len(CORRECTED) == 6
    whole = snapshot_of(CORRECTED)
    assert whole.standing()[Subject("pay_1")].event_id == "evt_1"
    refund_key = b"refund/pay_1/re_1/evt_r"
    for cut_key, _ in CORRECTED:
        snapshot = snapshot_of(record for record in CORRECTED if record[0] != cut_key)
        # The refund was never corrected, so it has only one entry. If this entry is missing, no
        # other entry reveals the loss.
        expected = set() if cut_key == refund_key else {Subject("pay_1")}
        assert snapshot.cut_corrections() == expected, cut_key
        snapshot.read(*next(record for record in CORRECTED if record[0] == cut_key))
        assert snapshot.cut_corrections() == set()


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (CORRECTED[0][0], None, "is not an entry"),
        (CORRECTED[0][0], b"{", "is not an entry"),
        (CORRECTED[0][0], CORRECTED[0][1].replace(b":-3,", b":-4,"), "does not balance"),
        (b"payment/pay_1/evt_9", CORRECTED[0][1], "another key, 'payment/pay_1/evt_9'"),
        (None, CORRECTED[0][1], "another key, ''"),
    ],
)
def test_a_record_is_refused_if_it_is_no_entry_or_if_its_key_is_not_the_entrys_id(key, value, why):
    with pytest.raises(JournalFaultError, match="payment/pay_1/evt_") as caught:
        JournalSnapshot().read(key, value)
    assert why in str(caught.value)


def test_a_repeated_entry_with_different_money_is_refused():
    snapshot = snapshot_of(CORRECTED)
    key, value = CORRECTED[0]
    with pytest.raises(JournalFaultError, match="occurred before with other content"):
        snapshot.read(key, value.replace(b":3,", b":4,").replace(b":-3,", b":-4,"))
