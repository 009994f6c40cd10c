"""A payment's state depends only on the set of its facts, not on the sequence of their arrival."""

from itertools import permutations

import pytest

from ledger.payments import Payment, describe, describe_placed, fold_payments
from tests.ledger.examples import failure, refund, success
from tests.ledger.pipeline import Pipeline


def payment_of(*events) -> Payment:
    """Return the payment; fail if the events lead to a different payment in another sequence."""
    folded = [fold_payments(order, {}).payments for order in permutations(events)]
    (payment,) = folded[0].values()
    documents = [describe_placed(next(iter(payments.values()))) for payments in folded]
    assert all(document == documents[0] for document in documents)
    return payment


def document_of(*events):
    return describe(payment_of(*events))


def anomalies_of(*events):
    return document_of(*events).anomalies


def published(folded):
    """Map each order to the number of facts in its snapshot of the payment.

    An order to which the payment does not belong is mapped to ``withdrawn``.
    """
    return {
        snapshot.order_id: len(snapshot.payment.events) if snapshot.payment else "withdrawn"
        for snapshot in folded.snapshots
    }


def test_a_payment_with_one_failure_has_paid_nothing_and_names_the_event():
    event = failure()
    document = document_of(event)
    assert (document.status, document.amount, document.currency) == ("failed", None, None)
    assert (document.created, document.anomalies) == (event.created, event.marks)
    assert [each.event_id for each in document.events] == [event.event_id]


# Anomalies of a payment.


def test_a_refund_without_a_success_is_an_anomaly_until_the_success_arrives():
    assert anomalies_of(refund()) == ("refund_without_payment",)
    assert anomalies_of(refund(), failure()) == ("refund_without_payment",)
    assert anomalies_of(refund(), success()) == ()


def test_refunds_are_an_anomaly_only_if_they_exceed_the_payment():
    first, second = refund("evt_2", amount=300), refund("evt_3", amount=200, refund_id="re_2")
    assert anomalies_of(success(amount=500), first, second) == ()
    assert anomalies_of(success(amount=499), first, second) == ("refund_exceeds_payment",)


def test_refunds_that_exceed_the_amount_of_the_earliest_success_are_an_anomaly():
    events = [success(amount=100), success("evt_2", 2, 900), refund(amount=101)]
    assert anomalies_of(*events) == ("conflicting_amount", "refund_exceeds_payment")


def test_a_refund_in_a_different_currency_is_an_anomaly_and_is_not_added_to_other_refunds():
    events = [success(amount=500), refund("evt_2", amount=900, currency="USD")]
    assert anomalies_of(*events) == ("currency_mismatch",)
    exceeding = refund("evt_3", amount=501, refund_id="re_2")
    assert anomalies_of(*events, exceeding) == ("currency_mismatch", "refund_exceeds_payment")


@pytest.mark.parametrize("other", [{"amount": 501}, {"currency": "USD"}])
def test_successes_that_disagree_about_the_money_are_an_anomaly(other):
    assert anomalies_of(success(), success("evt_2", 2)) == ()
    assert anomalies_of(success(), success("evt_2", 2, **other)) == ("conflicting_amount",)


@pytest.mark.parametrize("other", [{"amount": 101}, {"currency": "USD"}])
def test_facts_that_disagree_about_one_refund_are_an_anomaly(other):
    agreeing = [success(), refund("evt_2"), refund("evt_3", 3)]
    assert anomalies_of(*agreeing) == ()
    assert "conflicting_refund" in anomalies_of(*agreeing, refund("evt_4", 4, **other))


def test_two_refunds_with_different_amounts_are_not_a_conflict():
    events = [success(), refund("evt_2", amount=1), refund("evt_3", amount=2, refund_id="re_2")]
    assert anomalies_of(*events) == ()


def test_facts_that_name_different_orders_are_an_anomaly():
    assert anomalies_of(success(order="A"), refund(order="A"), failure()) == ()
    assert anomalies_of(success(order="A"), refund(order="B")) == ("conflicting_order",)
    assert anomalies_of(success(order="A"), failure(order="B")) == ("conflicting_order",)
    assert anomalies_of(success(order="A"), failure(order="a")) == ("conflicting_order",)


@pytest.mark.parametrize("created", [1, 2, 3])
def test_a_failure_is_an_anomaly_only_if_it_was_created_after_the_success(created):
    document = document_of(success(created=2), failure(created=created, amount=7, currency="USD"))
    expected = ("failed_after_success",) if created > 2 else ()
    assert (document.status, document.anomalies) == ("succeeded", expected)
    assert len(document.events) == 2


def test_anomalies_are_sorted_and_each_anomaly_is_listed_once():
    events = [
        success(order="B"),
        success("evt_2", 2, 400, order="A"),
        refund("evt_3", amount=501),
        refund("evt_4", amount=502),
        refund("evt_5", refund_id="re_2", currency="USD"),
    ]
    assert anomalies_of(*events) == (
        "conflicting_amount",
        "conflicting_order",
        "conflicting_refund",
        "currency_mismatch",
        "refund_exceeds_payment",
    )


# Status, amount and refunds.


def test_a_success_outranks_a_failure_and_the_status_is_unknown_if_there_is_neither():
    assert document_of(failure(), success(), refund()).status == "succeeded"
    assert document_of(failure(), failure("evt_2"), refund()).status == "failed"
    assert document_of(refund()).status == "unknown"


def test_a_payment_has_the_money_of_its_earliest_success():
    late, early = success("evt_1", 9, 100), success("evt_2", 3, 200, currency="USD")
    document = document_of(late, early, failure(created=1, amount=300))
    assert (document.amount, document.currency, document.created) == (200, "USD", 3)


def test_the_smaller_event_id_decides_between_successes_at_the_same_time():
    document = document_of(success("evt_b", 3, 100), success("evt_a", 3, 200))
    assert document.amount == 200


def test_a_payment_that_has_no_success_has_no_money_but_has_the_time_of_its_first_fact():
    document = document_of(failure(created=5), refund(created=4))
    assert (document.amount, document.currency, document.created) == (None, None, 4)


def test_a_refund_counts_once_with_the_amount_of_its_earliest_fact():
    (counted,) = document_of(success(), refund("evt_3", 3, 30), refund("evt_2", 2, 20)).refunds
    assert (counted.refund_id, counted.amount) == ("re_1", 20)
    assert (counted.created, counted.event_id) == (2, "evt_2")


@pytest.mark.parametrize("reference", ["pay_1", None])
def test_if_a_refunds_id_equals_the_payments_id_each_event_is_a_separate_refund(reference):
    named = {"refund_id": "pay_1", "payment": reference}
    document = document_of(success(), refund("evt_2", **named), refund("evt_3", **named))
    assert [held.refund_id for held in document.refunds] == ["evt_2", "evt_3"]


def test_a_refund_that_names_no_payment_is_a_separate_payment():
    payments = fold_payments([success(), refund(payment=None)], {}).payments
    assert list(payments) == ["pay_1", "re_1"]
    assert describe(payments["re_1"]).anomalies == ("refund_without_payment",)


def test_the_same_refund_id_under_two_payments_is_two_refunds():
    events = [refund("evt_1"), refund("evt_2", payment="pay_2")]
    payments = fold_payments(events, {}).payments
    assert [len(describe(payment).refunds) for payment in payments.values()] == [1, 1]


def test_refunds_and_events_are_sorted_by_time_and_then_by_id():
    events = [refund(f"evt_{n}", 9 - n // 2, refund_id=f"re_{n}") for n in range(4)]
    document = document_of(*events)
    assert [held.refund_id for held in document.refunds] == ["re_2", "re_3", "re_0", "re_1"]
    assert [held.event_id for held in document.events] == ["evt_2", "evt_3", "evt_0", "evt_1"]


def test_an_event_is_shown_with_its_place_in_the_log():
    (shown,) = document_of(success(created=3, offset=42)).events
    assert (shown.event_id, shown.type, shown.created) == ("evt_1", "payment.succeeded", 3)
    assert (shown.partition, shown.offset) == (0, 42)


# The order to which a payment belongs.


def test_a_payment_belongs_to_the_order_named_by_its_earliest_fact_that_names_an_order():
    events = [refund(created=1), success(created=3, order="B"), failure(created=2, order="A")]
    assert payment_of(*events).order_id == "A"


def test_the_smaller_event_id_decides_between_order_references_at_the_same_time():
    assert payment_of(success("evt_b", order="B"), failure("evt_a", order="A")).order_id == "A"


def test_a_payment_that_names_no_order_forms_an_order_with_its_own_id():
    assert payment_of(success(), refund()).order_id == "pay_1"


def test_a_placed_payment_shows_its_order_and_its_number_of_facts():
    payment = payment_of(success(order="A"), refund())
    placed = describe_placed(payment)
    assert (placed.order_id, placed.version) == ("A", 2)
    assert placed.payment_id == describe(payment).payment_id


# The records that are published when events are folded.


def test_a_known_fact_changes_nothing_and_publishes_nothing():
    known = fold_payments([success()], {}).payments
    again = fold_payments([success(), success(offset=9)], known)
    assert (again.payments, again.snapshots, again.entries) == ({}, [], [])


def test_a_late_fact_moves_the_whole_payment_from_its_old_order_to_the_new_order():
    known = fold_payments([success("evt_1", 5, order="A")], {}).payments
    folded = fold_payments([failure("evt_2", 4, order="B")], known)
    assert published(folded) == {"A": "withdrawn", "B": 2}
    assert {snapshot.version for snapshot in folded.snapshots} == {2}


def test_a_late_reference_moves_the_payment_out_of_the_order_with_its_own_id():
    known = fold_payments([refund()], {}).payments
    folded = fold_payments([success(order="A")], known)
    assert published(folded) == {"pay_1": "withdrawn", "A": 2}


def test_a_late_fact_that_names_the_same_order_does_not_move_the_payment():
    known = fold_payments([success("evt_1", 5, order="A")], {}).payments
    assert published(fold_payments([failure("evt_2", 4, order="A")], known)) == {"A": 2}


def test_an_order_named_only_by_a_later_fact_receives_a_snapshot_without_the_payment():
    known = fold_payments([success("evt_1", 5, order="A")], {}).payments
    named = fold_payments([refund(created=9, order="B")], known)
    assert published(named) == {"A": 2, "B": "withdrawn"}


def test_a_payment_is_removed_from_every_order_that_it_passed_through_in_one_chunk():
    run = [success(f"evt_{n}", 9 - n, order=order) for n, order in enumerate("ABC")]
    assert published(fold_payments(run, {})) == {"A": "withdrawn", "B": "withdrawn", "C": 3}


def test_a_payment_that_was_published_before_a_crash_is_removed_from_its_order_when_it_moves():
    first, earlier = success("evt_1", 5, order="A"), success("evt_2", 4, order="B")
    pipeline = Pipeline()
    pipeline.fold([[first]], crash_before_state=True)
    assert list(pipeline.documents()) == ["A"]
    pipeline.fold([[first, earlier]])
    (document,) = pipeline.documents().values()
    assert (document.order_id, document.version) == ("B", 2)


def test_a_moving_payment_is_in_one_order_after_a_crash_however_its_events_are_cut_into_chunks():
    run = [success(f"evt_{n}", 9 - n, order=order) for n, order in enumerate("ABAC")]
    for published_before in range(1, 5):
        for cut in range(1, 5):
            pipeline = Pipeline()
            pipeline.fold([run[:published_before]], crash_before_state=True)
            pipeline.fold([run[:cut], run[cut:]])
            assert list(pipeline.documents()) == ["C"]


def test_folding_events_does_not_change_the_payments_that_are_passed_in():
    known = fold_payments([success()], {}).payments
    before = dict(known)
    facts = dict(known["pay_1"].facts)
    fold_payments([refund(), success("evt_9", payment="pay_2")], known)
    assert known == before
    assert known["pay_1"].facts == facts
