"""Two versions are compared, except for content that depends on the sequence of arrival."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.money import Money
from ledger.verification.comparison import (
    DOCUMENT_VIEW,
    ORDER_VIEW,
    PAYMENT_VIEW,
    Held,
    JournalComparison,
    Versions,
    differences,
    is_moving,
)
from ledger.verification.differences import Difference, DifferenceKind
from ledger.verification.truth import Truth
from ledger.wire import ENTRIES, PAYMENTS
from tests.ledger.examples import success
from tests.ledger.verification.audited import Ledger, example
from tests.strategies import histories

VERSIONS = Versions(1, 2)


def compare(old: Ledger, new: Ledger, truth: Truth | None = None) -> list[Difference]:
    """Compare two ledgers; without ``truth``, every fact counts as settled."""
    truth = truth or new.truth()
    found = []
    for view, before, after in (
        (PAYMENT_VIEW, old.payments, new.payments),
        (ORDER_VIEW, old.orders, new.orders),
        (DOCUMENT_VIEW, old.documents, new.documents),
    ):
        for key in sorted(before.keys() | after.keys()):
            held = Held(view, key, before.get(key), after.get(key))
            if not is_moving(truth, held):
                found += differences(truth, held, VERSIONS)
    journal = JournalComparison()
    journal.read(VERSIONS, set(old.entries), set(new.entries))
    return found + list(journal.differences(truth))


def alter(ledger: Ledger) -> None:
    """Change the amount of a payment."""
    payment = PAYMENTS.decode(ledger.payments[b"pay_1"])
    fact = msgspec.structs.replace(payment.facts["evt_1"], money=Money(501, "KZT"))
    facts = payment.facts | {"evt_1": fact}
    ledger.payments[b"pay_1"] = PAYMENTS.encode(msgspec.structs.replace(payment, facts=facts))


def test_equal_versions_have_no_difference():
    assert compare(example(), example()) == []


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_two_folds_of_one_log_in_different_sequences_have_no_difference(
    data: st.DataObject,
) -> None:
    history = data.draw(histories())
    one, other = Ledger(history), Ledger(history)
    order = {event.event_id: n for n, event in enumerate(data.draw(st.permutations(history)))}
    # Each event keeps its place in the log; only the sequence of the fold differs.
    other.refold(sorted(other.events(), key=lambda event: order[event.event_id]))
    assert compare(one, other) == []


def test_a_different_value_is_reported_with_the_field_and_both_values_and_the_events():
    old = example()
    alter(old)
    (found,) = compare(old, example())
    assert str(found) == (
        "versions_differ  payment pay_1: facts.evt_1.money.amount_minor: "
        "version 1 has 501, version 2 has 500"
    )
    assert [event.event_id for event in found.events] == ["evt_1", "evt_2"]


def test_the_first_fields_that_differ_are_shown_and_the_others_are_counted():
    old = example()
    del old.orders[b"ord_1"]
    del old.documents[b"ord_1"]
    lost, document = compare(old, example())
    assert (lost.subject, lost.detail) == ("order ord_1", "only version 2 has it")
    assert document.subject == "document of order ord_1"
    old.orders[b"ord_1"] = example().orders[b"ord_3"]
    (found, _) = compare(old, example())
    assert found.detail.startswith("order_id: version 1 has 'ord_3', version 2 has 'ord_1'; ")
    assert found.detail.endswith(" more fields")


def test_a_value_that_cannot_be_read_is_a_difference():
    old = example()
    old.payments[b"pay_1"] = b"\xc1"
    (found,) = compare(old, example())
    assert found.detail.startswith("value: version 1 has 'unreadable', version 2 has nothing")


def test_a_value_that_the_log_does_not_explain_is_a_difference():
    old = example()
    other = Ledger([success("evt_9", payment="pay_9", order="ord_9")])
    old.payments |= other.payments
    (found,) = compare(old, example())
    assert (found.subject, found.detail, found.events) == (
        "payment pay_9",
        "only version 1 has it",
        (),
    )


def test_an_order_is_equal_to_a_missing_order_if_every_payment_has_left_it():
    """Whether a payment was ever in this order depends on the sequence in which events arrived."""
    old, new = example(), example()
    assert b"ord_2" in old.orders
    del new.orders[b"ord_2"]
    assert compare(old, new) == []


def test_values_with_unsettled_facts_are_not_compared():
    old, new = example(), example()
    alter(old)
    assert len(compare(old, new)) == 1
    truth = new.truth(settled={})
    assert compare(old, new, truth) == []


@pytest.mark.parametrize("which", [0, 1, 2, 3, 4])
def test_an_entry_that_is_in_only_one_journal_is_reported(which):
    old = example()
    key, _ = old.entries.pop(which)
    (found,) = compare(old, example())
    assert (found.kind, found.subject) == (DifferenceKind.VERSIONS_DIFFER, f"entry {key.decode()}")
    assert found.detail == "only version 2 has an entry with this content"
    assert found.events


def test_an_entry_with_different_money_and_an_unreadable_entry_are_reported():
    old = example()
    key, value = old.entries[0]
    entry = ENTRIES.decode(value)
    postings = tuple(
        msgspec.structs.replace(posting, amount=posting.amount * 2) for posting in entry.postings
    )
    old.entries += [(key, ENTRIES.encode(msgspec.structs.replace(entry, postings=postings)))]
    old.entries += [(b"odd", b"{}")]
    found = compare(old, example())
    assert sorted(str(each) for each in found) == [
        "versions_differ  entry odd: only version 1 has it, but it can't be read",
        f"versions_differ  entry {key.decode()}: only version 1 has an entry with this content",
    ]


def test_reversed_entries_that_are_in_only_one_journal_are_counted_and_not_reported():
    events = [success("evt_1", 2, 5), success("evt_2", 1, 5)]
    old, new = Ledger(events), Ledger(events)
    new.refold(sorted(new.events(), key=lambda event: event.created))
    journal = JournalComparison()
    journal.read(VERSIONS, set(old.entries), set(new.entries))
    assert list(journal.differences(new.truth())) == []
    assert (journal.same, journal.cancelled, journal.moving) == (1, 2, 0)
    moving = JournalComparison()
    moving.read(VERSIONS, set(old.entries[:1]), set(new.entries))
    assert list(moving.differences(new.truth(settled={}))) == []
    assert moving.moving == 2
