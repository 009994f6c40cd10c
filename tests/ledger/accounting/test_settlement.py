"""Lines of a settlement file are matched with entries; each line and each entry counts once."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.accounting.settlement import Discrepancy, Line, Period, kind_of, money_of, reconcile
from ledger.journal import Subject, entry_of
from ledger.money import Money
from tests.ledger.examples import refund, success

ALWAYS = Period()


def paid(payment="pay_1", amount=500, currency="KZT", created=1, offset=0):
    fields = {"payment": payment, "currency": currency, "offset": offset}
    fact = success(f"evt_{payment}", created, amount, **fields)
    return entry_of(Subject(payment), (fact,))


def refunded(refund_id="re_1", amount=100, currency="KZT", created=2, *, payment="pay_1", offset=0):
    fields = {"payment": payment, "currency": currency, "offset": offset}
    fact = refund(f"evt_{refund_id}", created, amount, **fields)
    return entry_of(Subject(payment, refund_id), (fact,))


def line(number, kind="payment", amount=500, currency="KZT", payment="pay_1"):
    return Line(number, payment, kind, Money(amount, currency))


def found(lines, entries, period=ALWAYS):
    """Return the number of matches, and a tuple for each mismatch.

    The tuple has the discrepancy, the number of the line, and the id of the refund or the payment.
    """
    result = reconcile(lines, entries, period)
    return result.matched, [
        (
            each.finding,
            each.line and each.line.number,
            each.entry and (each.entry.refund_id or each.entry.payment_id),
        )
        for each in result.mismatches
    ]


def test_equal_lines_and_entries_match():
    lines = [line(2), line(3, "refund", 100)]
    assert found(lines, [refunded(), paid()]) == (2, [])


@pytest.mark.parametrize(
    ("lines", "entries", "expected"),
    [
        ([line(2)], [], (Discrepancy.MISSING_HERE, 2, None)),
        ([], [paid()], (Discrepancy.MISSING_THERE, None, "pay_1")),
        ([line(2, amount=499)], [paid()], (Discrepancy.AMOUNT_DIFFERS, 2, "pay_1")),
        ([line(2, currency="USD")], [paid()], (Discrepancy.CURRENCY_DIFFERS, 2, "pay_1")),
    ],
)
def test_each_kind_of_mismatch_is_reported(lines, entries, expected):
    assert found(lines, entries) == (0, [expected])


def test_a_line_about_a_refund_does_not_match_the_entry_of_a_payment():
    assert found([line(2, "refund", 500)], [paid()]) == (
        0,
        [(Discrepancy.MISSING_THERE, None, "pay_1"), (Discrepancy.MISSING_HERE, 2, None)],
    )


def test_a_repeated_line_matches_once():
    assert found([line(2), line(3)], [paid()]) == (1, [(Discrepancy.MISSING_HERE, 3, None)])


def test_the_refunds_of_a_payment_are_matched_by_their_amounts():
    entries = [refunded("re_1", 10), refunded("re_2", 10), refunded("re_3", 30)]
    lines = [line(2, "refund", 30), line(3, "refund", 10), line(4, "refund", 10)]
    assert found(lines, entries) == (3, [])
    assert found(lines[:2], entries) == (2, [(Discrepancy.MISSING_THERE, None, "re_2")])
    lines[2] = line(4, "refund", 11)
    assert found(lines, entries) == (2, [(Discrepancy.AMOUNT_DIFFERS, 4, "re_2")])


def test_a_line_is_preferably_paired_with_an_entry_in_the_currency_of_the_line():
    entries = [refunded("re_1", 10, "USD"), refunded("re_2", 20)]
    lines = [line(2, "refund", 21), line(3, "refund", 20, "EUR")]
    assert found(lines, entries) == (
        0,
        [(Discrepancy.AMOUNT_DIFFERS, 2, "re_2"), (Discrepancy.CURRENCY_DIFFERS, 3, "re_1")],
    )


def test_entries_outside_the_period_are_not_reported_as_missing():
    entries = [paid("pay_1", created=9), paid("pay_2", created=10), paid("pay_3", created=20)]
    period = Period(10, 20)
    assert found([], entries, period) == (0, [(Discrepancy.MISSING_THERE, None, "pay_2")])
    # A line still matches an entry from outside the period.
    assert found([line(2), line(3, payment="pay_2")], entries, period) == (2, [])
    assert found([line(2, amount=1), line(3, payment="pay_2")], entries, period) == (
        1,
        [(Discrepancy.AMOUNT_DIFFERS, 2, "pay_1")],
    )


def test_a_line_is_never_paired_with_a_refund_that_is_outside_the_period_and_has_another_amount():
    entries = [refunded("re_1", 10, created=1), refunded("re_2", 15, created=11)]
    period = Period(10, None)
    # The line matches the entry inside the period rather than an equal entry outside the period.
    twice = [*entries, refunded("re_3", 15, created=2)]
    assert found([line(2, "refund", 15)], twice, period) == (1, [])
    assert found([line(2, "refund", 10), line(3, "refund", 15)], entries, period) == (2, [])
    assert found([line(2, "refund", 15), line(3, "refund", 11)], entries, period) == (
        1,
        [(Discrepancy.MISSING_HERE, 3, None)],
    )


# The strategies draw few different values, so that lines and entries often match.
payments = st.sampled_from(["pay_1", "pay_2"])
kinds = st.sampled_from(["payment", "refund"])
monies = st.builds(Money, st.integers(0, 3), st.sampled_from(["KZT", "JPY"]))
times = st.integers(0, 9)
periods = st.builds(Period, st.none() | st.integers(0, 9), st.none() | st.integers(0, 9))


@st.composite
def books(draw):
    """Draw entries at distinct offsets: for each payment, at most one success and some refunds."""
    entries = []
    for number, payment in enumerate(("pay_1", "pay_2", "pay_3")):
        if draw(st.booleans()):
            money, created = draw(monies), draw(times)
            fields = (money.amount_minor, money.currency, created)
            entries.append(paid(payment, *fields, offset=len(entries)))
        for money, created in draw(st.lists(st.tuples(monies, times), max_size=4)):
            fields = (money.amount_minor, money.currency, created)
            refund_id, offset = f"re_{number}_{len(entries)}", len(entries)
            entries.append(refunded(refund_id, *fields, payment=payment, offset=offset))
    return entries


@st.composite
def files(draw):
    drawn = draw(st.lists(st.tuples(payments, kinds, monies), max_size=8))
    return [Line(number, *each) for number, each in enumerate(drawn, 2)]


@given(files(), books(), periods, st.randoms(use_true_random=False))
def test_the_sequence_of_lines_and_entries_changes_nothing(lines, entries, period, random):
    result = reconcile(lines, entries, period)
    random.shuffle(lines)
    random.shuffle(entries)
    assert reconcile(lines, entries, period) == result


@given(files(), books(), periods)
def test_every_line_and_every_entry_of_the_period_is_counted_once(lines, entries, period):
    result = reconcile(lines, entries, period)
    told = Counter(each.line for each in result.mismatches if each.line)
    held = Counter(each.entry.entry_id for each in result.mismatches if each.entry)
    assert max([*told.values(), *held.values()], default=1) == 1
    assert sum(total.lines for total in result.totals) == len(lines)
    assert result.matched + len(told) == len(lines)
    counted = sum(total.entries for total in result.totals)
    assert counted == result.matched + len(held)
    inside = [entry for entry in entries if entry in period]
    assert counted >= len(inside)
    if period == ALWAYS:
        assert counted == len(entries)


@given(files(), books())
def test_the_number_of_matches_is_the_size_of_the_multiset_intersection_of_both_sides(
    lines, entries
):
    there = Counter((each.payment_id, each.kind, each.money) for each in lines)
    here = Counter((each.payment_id, kind_of(each), money_of(each)) for each in entries)
    assert reconcile(lines, entries, ALWAYS).matched == (there & here).total()


@given(files(), books())
def test_totals_are_the_sums_of_the_lines_and_of_the_entries_by_currency_and_kind(lines, entries):
    result = reconcile(lines, entries, ALWAYS)
    there: Counter = Counter()
    here: Counter = Counter()
    for each in lines:
        there[each.money.currency, each.kind] += each.money.amount_minor
    for entry in entries:
        here[money_of(entry).currency, kind_of(entry)] += money_of(entry).amount_minor
    assert {(t.currency, t.kind): t.lines_minor for t in result.totals if t.lines} == there
    assert {(t.currency, t.kind): t.entries_minor for t in result.totals if t.entries} == here


@given(books(), periods)
def test_a_file_with_all_entries_of_a_period_matches_completely(entries, period):
    inside = [entry for entry in entries if entry in period]
    lines = [
        Line(number, each.payment_id, kind_of(each), money_of(each))
        for number, each in enumerate(inside, 2)
    ]
    result = reconcile(lines, entries, period)
    assert (result.matched, result.mismatches) == (len(inside), [])
    assert all(total.lines_minor == total.entries_minor for total in result.totals)
