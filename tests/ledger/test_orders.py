"""The status, totals and version of an order depend only on the snapshots of its payments."""

from itertools import permutations

import pytest

from ledger.anomalies import new_anomalies
from ledger.orders import Order, Totals, describe, fold_orders
from ledger.payments import Snapshot, fold_payments
from tests.ledger.examples import failure, refund, success
from tests.ledger.pipeline import documents_of


def order_of(*events):
    """Fold the events, and return the document of the only order."""
    (document,) = documents_of(events).values()
    return document


def paid(amount, **more):
    """Create a success for order A; the payment's id is ``p_`` followed by the currency."""
    currency = more.get("currency", "KZT")
    return success(f"evt_{currency}", amount=amount, payment=f"p_{currency}", order="A", **more)


def back(amount, currency="KZT", event_id="evt_r"):
    """Create a refund of the payment that ``paid`` creates in the same currency."""
    more = {"payment": f"p_{currency}", "refund_id": event_id, "order": "A"}
    return refund(f"{event_id}_{currency}", amount=amount, currency=currency, **more)


# The status of an order is the first status that applies.


@pytest.mark.parametrize(
    ("status", "events"),
    [
        ("over_refunded", [paid(500), back(501)]),
        ("over_refunded", [paid(500), back(300), back(201, event_id="evt_s")]),
        ("over_refunded", [back(1)]),
        ("over_refunded", [failure(payment="p_KZT", order="A"), back(1)]),
        ("over_refunded", [paid(500), paid(9, currency="USD"), back(10, "USD")]),
        ("over_refunded", [paid(500), back(500), paid(9, currency="USD"), back(10, "USD")]),
        ("refunded", [paid(500), back(500)]),
        ("refunded", [paid(500), back(300), back(200, event_id="evt_s")]),
        ("refunded", [paid(500), back(500), paid(9, currency="USD"), back(9, "USD")]),
        ("refunded", [failure(payment="p_KZT", order="A"), paid(500), back(500)]),
        ("partially_refunded", [paid(500), back(1)]),
        ("partially_refunded", [paid(500), back(499)]),
        ("partially_refunded", [paid(500), back(500), paid(9, currency="USD")]),
        ("partially_refunded", [paid(500), back(500), paid(9, currency="USD"), back(8, "USD")]),
        ("paid", [paid(500)]),
        ("paid", [paid(500), failure(payment="p_KZT", order="A")]),
        ("paid", [paid(500), failure(payment="p_2", order="A")]),
        ("paid", [paid(500), back(0)]),
        ("paid", [paid(0)]),
        ("paid", [paid(0), back(0)]),
        ("failed", [failure(order="A")]),
        ("failed", [failure(order="A"), failure("evt_2", payment="pay_2", order="A")]),
    ],
)
def test_the_status_of_an_order_is_the_first_status_that_applies(status, events):
    for arrived in permutations(events):
        assert order_of(*arrived).status == status


def test_a_refund_in_a_currency_that_was_never_paid_gives_the_status_over_refunded():
    document = order_of(paid(500), refund(payment="p_KZT", amount=1, currency="USD"))
    assert document.status == "over_refunded"
    assert document.anomalies == ("currency_mismatch",)


# Totals and the rest of the document.


def test_totals_are_sorted_by_currency_and_never_added_across_currencies():
    document = order_of(paid(9, currency="USD"), paid(500), back(4, "USD"))
    assert document.totals == {"KZT": Totals(500, 0, 500), "USD": Totals(9, 4, 5)}
    assert list(document.totals) == ["KZT", "USD"]


def test_totals_sum_the_payments_of_the_order_and_count_each_refund_once():
    events = [success(f"evt_{n}", amount=n, payment=f"p_{n}", order="A") for n in (1, 2, 4)]
    twice = [refund(f"evt_r{n}", amount=1, payment="p_4") for n in range(2)]
    document = order_of(*events, *twice)
    assert document.totals == {"KZT": Totals(7, 1, 6)}
    assert document.version == 5


def test_a_currency_with_only_refunds_has_totals_and_a_currency_with_only_failures_has_none():
    assert order_of(back(4, "USD")).totals == {"USD": Totals(0, 4, -4)}
    assert order_of(failure(order="A")).totals == {}


def test_totals_may_exceed_the_largest_amount():
    largest = 2**53 - 1
    events = [success(f"e{n}", amount=largest, payment=f"p{n}", order="A") for n in range(3)]
    assert order_of(*events).totals["KZT"].paid == 3 * largest


def test_the_version_is_the_number_of_distinct_facts_and_the_first_and_last_times_are_shown():
    events = [paid(500, created=5), failure("evt_2", 3, payment="p_2", order="A"), back(1)]
    document = order_of(*events, *events)
    assert (document.version, document.first_event, document.last_event) == (3, 2, 5)


def test_the_anomalies_of_all_payments_are_sorted_and_each_anomaly_is_listed_once():
    without = [refund(f"evt_{n}", payment=f"p_{n}", order="A") for n in range(2)]
    document = order_of(*without, success(amount=1, order="A"), refund(amount=2))
    assert document.anomalies == ("refund_exceeds_payment", "refund_without_payment")


def test_payments_are_sorted_by_id():
    events = [success(f"evt_{n}", payment=f"p_{n}", order="A") for n in (2, 0, 1)]
    assert [payment.payment_id for payment in order_of(*events).payments] == ["p_0", "p_1", "p_2"]


# Snapshots may arrive in any sequence and any number of times.


def snapshot(*events, known=None):
    """Fold the events; return the last of the resulting snapshots."""
    return fold_payments(events, known or {}).snapshots[-1]


def test_the_snapshot_with_more_facts_replaces_the_other_snapshot_of_the_same_payment():
    old, new = snapshot(success(order="A")), snapshot(success(order="A"), refund())
    for arrived in ([old, new], [new, old], [old, new, old, new]):
        order = fold_orders(arrived, {})["A"]
        assert order.payments == {"pay_1": new}


def test_a_known_or_older_snapshot_changes_no_order():
    old, new = snapshot(success(order="A")), snapshot(success(order="A"), refund())
    known = fold_orders([new], {})
    assert fold_orders([new, old], known) == {}


def test_an_order_whose_payments_have_all_moved_to_other_orders_has_no_document():
    there, gone = snapshot(success(order="A")), Snapshot("A", "pay_1", 2, None)
    assert describe(fold_orders([there, gone], {})["A"]) is None
    assert describe(fold_orders([gone], {})["A"]) is None
    assert describe(Order("A")) is None


def test_the_version_of_an_order_is_the_version_of_its_document_or_zero():
    one, other = snapshot(success(order="A")), snapshot(success("evt_2", payment="p_2", order="A"))
    order = fold_orders([one, other], {})["A"]
    assert order.version == describe(order).version == 2
    gone = fold_orders([Snapshot("A", "p_2", 2, None)], {"A": order})["A"]
    assert gone.version == describe(gone).version == 1
    assert Order("A").version == 0


def test_an_old_snapshot_does_not_return_a_payment_to_an_order_that_the_payment_has_left():
    there, gone = snapshot(success(order="A")), Snapshot("A", "pay_1", 2, None)
    assert describe(fold_orders([gone, there], {})["A"]) is None
    assert fold_orders([there], fold_orders([gone], {})) == {}


def test_an_order_keeps_its_second_payment_after_its_first_payment_moved_away():
    events = [
        success("e1", 5, 1, payment="p_1", order="A"),
        success("e2", payment="p_2", order="A"),
    ]
    moved = success("e3", 4, 1, payment="p_1", order="B")
    documents = documents_of([*events, moved])
    assert [payment.payment_id for payment in documents["A"].payments] == ["p_2"]
    assert [payment.payment_id for payment in documents["B"].payments] == ["p_1"]
    assert (documents["A"].version, documents["B"].version) == (1, 2)


def test_folding_snapshots_does_not_change_the_orders_that_are_passed_in():
    known = fold_orders([snapshot(success(order="A"))], {})
    payments = dict(known["A"].payments)
    fold_orders([snapshot(success("e2", payment="p_2", order="A"))], known)
    assert known["A"].payments == payments


# New anomalies.


def order_before(*events):
    """Fold the events, and return the state of the only order."""
    (order,) = fold_orders(fold_payments(events, {}).snapshots, {}).values()
    return order


def test_an_anomaly_is_new_only_if_the_order_did_not_have_it_before():
    first, second = back(300), back(201, event_id="evt_s")
    good, bad = order_before(paid(500), first), order_before(paid(500), first, second)
    worse = order_before(paid(500), first, second, back(1, event_id="evt_t"))
    assert new_anomalies(describe(good), None) == set()
    assert new_anomalies(describe(bad), None) == {"refund_exceeds_payment"}
    assert new_anomalies(describe(bad), good) == {"refund_exceeds_payment"}
    assert new_anomalies(describe(worse), bad) == set()
    assert new_anomalies(describe(bad), bad) == set()


def test_an_anomaly_that_disappears_and_occurs_again_counts_as_new():
    alone, whole = order_before(back(1)), order_before(paid(500), back(1))
    assert new_anomalies(describe(alone), None) == {"refund_without_payment"}
    assert new_anomalies(describe(whole), alone) == set()
    assert new_anomalies(describe(alone), whole) == {"refund_without_payment"}
