"""Entries balance and never change; a correction is a reversal and a new entry."""

from itertools import permutations
from urllib.parse import unquote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.currencies import MINOR_UNIT_DIGITS
from ledger.journal import (
    PLEXY,
    REFUNDS,
    SALES,
    Entry,
    Posting,
    Subject,
    UnbalancedEntryError,
    balances,
    post,
)
from ledger.money import MAX_AMOUNT_MINOR
from ledger.payments import fold_payments
from tests.ledger.examples import failure, refund, success

amounts = st.integers(0, MAX_AMOUNT_MINOR)
currencies = st.sampled_from(sorted(MINOR_UNIT_DIGITS))
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
subjects = st.builds(Subject, ids, st.none() | ids)


def entry(*postings, entry_id="payment/pay_1/1") -> Entry:
    return Entry(
        entry_id=entry_id,
        payment_id="pay_1",
        refund_id=None,
        event_id="evt_1",
        created=1,
        partition=0,
        offset=0,
        reverses=None,
        postings=postings,
    )


def entries_of(*events):
    """Fold the events in the given sequence; return the entries by id."""
    return {entry.entry_id: entry for entry in fold_payments(events, {}).entries}


def shown(entry):
    return [(posting.account, posting.amount, posting.currency) for posting in entry.postings]


# Balanced entries.


@pytest.mark.parametrize(
    "postings",
    [
        [],
        [Posting(PLEXY, 1, "KZT")],
        [Posting(PLEXY, 1, "KZT"), Posting(SALES, 1, "KZT")],
        [Posting(PLEXY, 500, "KZT"), Posting(SALES, -499, "KZT")],
        [Posting(PLEXY, 1, "KZT"), Posting(SALES, -1, "USD")],
        [Posting(PLEXY, 1, "KZT"), Posting(SALES, -1, "KZT"), Posting(PLEXY, 1, "USD")],
    ],
)
def test_an_entry_that_does_not_balance_in_each_currency_cannot_be_constructed(postings):
    with pytest.raises(UnbalancedEntryError, match="payment/pay_1/1"):
        entry(*postings)


def test_an_entry_may_balance_in_two_currencies_at_once():
    legs = [Posting(PLEXY, 1, "KZT"), Posting(PLEXY, -2, "USD")]
    assert entry(*legs, *(Posting(SALES, -leg.amount, leg.currency) for leg in legs))


def test_bytes_of_an_entry_that_does_not_balance_are_not_decoded():
    good = entry(Posting(PLEXY, 1, "KZT"), Posting(SALES, -1, "KZT"))
    tampered = msgspec.json.encode(good).replace(b'"amount":1,', b'"amount":2,')
    with pytest.raises(msgspec.ValidationError, match="does not balance"):
        msgspec.json.decode(tampered, type=Entry)


@given(subjects, amounts, amounts, currencies, currencies)
def test_postings_and_corrections_balance_and_leave_only_the_money_of_the_standing_fact(
    subject, a, b, c, d
):
    old, new = success("evt_1", 2, a, currency=c), success("evt_2", 1, b, currency=d)
    entries = post(subject, (old,), None) + post(subject, (new,), (old,))
    assert post(subject, (new,), (new,)) == []
    sums = balances({entry.entry_id: entry for entry in entries})
    side = SALES if subject.refund_id is None else PLEXY
    assert -sums[side, new.money.currency] == new.money.amount_minor
    if old.money.currency != new.money.currency:
        assert sums[side, old.money.currency] == 0


# Posted entries.


def test_a_success_debits_plexy_and_credits_sales():
    (posted,) = entries_of(success(created=7, amount=500, offset=42)).values()
    assert shown(posted) == [(PLEXY, 500, "KZT"), (SALES, -500, "KZT")]
    assert (posted.entry_id, posted.reverses) == ("payment/pay_1/evt_1", None)
    assert (posted.payment_id, posted.refund_id) == ("pay_1", None)
    assert (posted.event_id, posted.created) == ("evt_1", 7)
    assert (posted.partition, posted.offset) == (0, 42)


def test_a_refund_debits_refunds_and_credits_plexy():
    (posted,) = entries_of(refund(amount=100, currency="USD")).values()
    assert shown(posted) == [(REFUNDS, 100, "USD"), (PLEXY, -100, "USD")]
    assert (posted.entry_id, posted.refund_id) == ("refund/pay_1/re_1/evt_r", "re_1")


def test_the_accounts_have_the_documented_names():
    assert (PLEXY, SALES, REFUNDS) == ("assets:plexy", "income:sales", "income:refunds")


def test_a_failure_posts_nothing():
    assert entries_of(failure(), failure("evt_2")) == {}


def test_a_later_fact_posts_nothing_because_the_earliest_fact_stands():
    assert list(entries_of(success(), success("evt_2", 2, 400))) == ["payment/pay_1/evt_1"]
    assert list(entries_of(refund(), refund("evt_s", 3))) == ["refund/pay_1/re_1/evt_r"]


def test_an_earlier_fact_about_the_same_money_replaces_a_later_fact():
    """Otherwise the sequence of arrival would decide which of the two entries stands."""
    entries = entries_of(success("evt_1", 5), success("evt_2", 4))
    base = "payment/pay_1"
    assert list(entries) == [f"{base}/evt_1", f"{base}/evt_1/reversal", f"{base}/evt_2"]
    assert balances(entries) == {(PLEXY, "KZT"): 500, (SALES, "KZT"): -500}


def test_an_earlier_fact_about_different_money_reverses_the_old_entry_and_posts_a_new_entry():
    entries = entries_of(success("evt_1", 5, 500), success("evt_2", 4, 400, currency="USD"))
    first, reversal, second = entries.values()
    assert shown(reversal) == [(PLEXY, -500, "KZT"), (SALES, 500, "KZT")]
    assert reversal.entry_id == "payment/pay_1/evt_1/reversal"
    assert (reversal.reverses, reversal.event_id) == (first.entry_id, first.event_id)
    assert (second.entry_id, second.reverses) == ("payment/pay_1/evt_2", None)
    assert shown(second) == [(PLEXY, 400, "USD"), (SALES, -400, "USD")]


def test_an_earlier_fact_about_a_refund_reverses_the_old_entry_and_posts_a_new_entry():
    entries = entries_of(refund("evt_1", 5, 100), refund("evt_2", 4, 90))
    base = "refund/pay_1/re_1"
    assert list(entries) == [f"{base}/evt_1", f"{base}/evt_1/reversal", f"{base}/evt_2"]
    assert balances(entries) == {(REFUNDS, "KZT"): 90, (PLEXY, "KZT"): -90}


def test_a_correction_of_a_correction_reverses_the_entry_that_stands():
    entries = entries_of(*(success(f"evt_{n}", 9 - n, 100 + n) for n in range(3)))
    assert [entry.reverses for entry in entries.values() if entry.reverses] == [
        "payment/pay_1/evt_0",
        "payment/pay_1/evt_1",
    ]
    assert list(entries)[-1] == "payment/pay_1/evt_2"
    assert balances(entries) == {(PLEXY, "KZT"): 102, (SALES, "KZT"): -102}


def test_each_subject_has_its_own_entry():
    events = [success(), refund("evt_2"), refund("evt_3", refund_id="re_2")]
    other = success("evt_4", payment="pay_2")
    assert list(entries_of(*events, other)) == [
        "payment/pay_1/evt_1",
        "refund/pay_1/re_1/evt_2",
        "refund/pay_1/re_2/evt_3",
        "payment/pay_2/evt_4",
    ]


# Entry ids.


def test_entries_with_the_same_id_have_equal_content_in_whatever_sequence_the_facts_arrive():
    facts = [success(f"evt_{n}", 5 - n, 100 + n) for n in range(3)]
    contents = {}
    for order in permutations(facts):
        for entry_id, entry in entries_of(*order).items():
            assert contents.setdefault(entry_id, entry) == entry
    assert len(contents) == 5


@pytest.mark.parametrize(
    ("subject", "entry_id"),
    [
        (Subject("pay/1"), "payment/pay%2F1/e%2F1"),
        (Subject("a b", "ü?#%"), "refund/a%20b/%C3%BC%3F%23%25/e%2F1"),
        (Subject("1/reversal", "1/reversal"), "refund/1%2Freversal/1%2Freversal/e%2F1"),
    ],
)
def test_ids_are_percent_encoded_in_an_entry_id(subject, entry_id):
    assert subject.entry_id("e/1") == entry_id


@given(subjects, subjects, ids, ids)
def test_different_subjects_or_events_never_share_an_entry_id(one, other, first, second):
    same = (one, first) == (other, second)
    assert (one.entry_id(first) == other.entry_id(second)) is same


@given(subjects, ids)
def test_a_subject_and_an_event_id_can_be_read_from_an_entry_id(subject, event_id):
    kind, payment_id, *refund_id, event = map(unquote, subject.entry_id(event_id).split("/"))
    assert kind == ("payment" if subject.refund_id is None else "refund")
    assert (Subject(payment_id, *refund_id), event) == (subject, event_id)


# Balances.


def test_entries_are_summed_by_account_and_currency():
    entries = entries_of(
        success(amount=500),
        refund("evt_2", amount=100),
        success("evt_3", amount=7, payment="pay_2", currency="USD"),
    )
    assert balances(entries) == {
        (PLEXY, "KZT"): 400,
        (SALES, "KZT"): -500,
        (REFUNDS, "KZT"): 100,
        (PLEXY, "USD"): 7,
        (SALES, "USD"): -7,
    }


def test_an_empty_journal_has_no_balances():
    assert balances({}) == {}
