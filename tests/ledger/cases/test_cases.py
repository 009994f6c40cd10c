"""Every case of ``webhooks.jsonl`` has the outcome that the tests expect.

The ledger's own code reads, deduplicates and folds each delivery. The cases about HTTP are tested
in tests/ingest/test_cases.py instead, with a real ingress.
"""

import json
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from ledger.deduplication import START, Rejected, deduplicate
from ledger.envelope import Envelope, decode_envelope
from ledger.events import Event, Reading
from ledger.lifecycle import LIFECYCLE
from ledger.orders import OrderDocument
from tests.ledger.cases.published import CASES, OVER_HTTP
from tests.ledger.pipeline import Pipeline

ARRIVED_S = 1_795_950_000
_SEED = Reading()


class Outcome(NamedTuple):
    """The outcome of each delivery of a case, in sequence, and the resulting events and orders."""

    outcomes: list[str]
    events: list[Event]
    rejected: list[Rejected]
    orders: dict[str, OrderDocument]

    @property
    def order(self) -> OrderDocument:
        """The order of a case that has only one order."""
        (order,) = self.orders.values()
        return order


def fold(deliveries: list[str], reading: Reading = _SEED) -> Outcome:
    """Read, deduplicate and fold deliveries, which arrive at intervals of a second."""
    records = []
    for number, text in enumerate(deliveries):
        envelope = decode_envelope(text.encode())
        assert isinstance(envelope, Envelope), envelope
        records.append(
            SimpleNamespace(
                key=envelope.id.encode(),
                value=text.encode(),
                partition=0,
                offset=number,
                timestamp=max(ARRIVED_S, _created(envelope)) * 1000 + number * 1000,
                headers=[],
            )
        )
    result = deduplicate(records, {}, reading, START)
    pipeline = Pipeline()
    pipeline.fold([each] for each in (*result.events, *result.notes))
    return Outcome(result.outcomes, result.events, result.rejected, pipeline.documents())


def _created(envelope: Envelope) -> int:
    """Return an envelope's time, or 0 if the time is not an integer or is implausibly late."""
    created = envelope.created
    is_plausible = type(created) is int and created < ARRIVED_S + 10**7
    return created if is_plausible else 0


PAYMENT = {"id": "p", "amount": 5000, "currency": "KZT", "merchantReference": "o"}


def event(event_id: str, kind: str, data: object, later_s: int = 0) -> str:
    created = 1_795_900_000 + later_s
    return json.dumps({"id": event_id, "type": kind, "created": created, "data": data})


def outcome_of(name: str) -> Outcome:
    return fold(CASES[name]["deliveries"])


def reference_in(name: str) -> str:
    (text,) = CASES[name]["deliveries"]
    data = json.loads(text)["data"]
    return str(data.get("merchantReference") or data.get("orderReference"))


COUNTS = {
    "currency_lower": ("oa1", {"KZT": 5000}),
    "amount_string": ("oa2", {"KZT": 5000}),
    "amount_float_integral": ("oa3", {"KZT": 5000}),
    "amount_object": ("oa5", {"KZT": 10000}),
    "withdrawn_currency_BGN": ("oa12", {"BGN": 5000, "HRK": 5000}),
    "created_iso": ("ob1", {"KZT": 5000}),
    "created_string_digits": ("ob2", {"KZT": 5000}),
    "created_ms": ("ob3", {"KZT": 5000}),
    "created_fraction": ("ob5", {"KZT": 5000}),
    "event_id_number": ("oc1", {"KZT": 5000}),
    "uuid_ids": ("oc4", {"KZT": 5000}),
    "oref_case": ("OC13", {"KZT": 5}),
    "metadata_null": ("pd29", {"KZT": 5000}),
    "metadata_list": ("pd30", {"KZT": 5000}),
    "metadata_string_json": ("od31", {"KZT": 5000}),
    "nested_orderDetails": ("od33", {"KZT": 5000}),
    "dup_id_keys": ("od44", {"KZT": 1}),
    "trailing_garbage": ("od49", {"KZT": 5000}),
    "bigint_extra": ("od51", {"KZT": 5000}),
    "ctype application/json; charset=utf-8": ("otc0", {"KZT": 100}),
    "ctype Application/JSON": ("otc2", {"KZT": 100}),
    **{
        name: (reference_in(name), None)
        for name in CASES
        if name.startswith("oref_") and "'" in name
    },
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_payment_counts_in_its_order_which_has_no_anomaly(name):
    order_id, paid = COUNTS[name]
    found = outcome_of(name)
    assert set(found.outcomes) == {"folded"}
    assert (found.order.order_id, found.order.status) == (order_id, "paid")
    assert found.order.anomalies == ()
    if paid is not None:
        assert {code: total.paid for code, total in found.order.totals.items()} == paid


CREATED = {
    "created_iso": 1795946400,
    "created_ms": 1795900000,
    "created_string_digits": 1795900000,
    "created_fraction": 1795900000,
}


@pytest.mark.parametrize("name", CREATED)
def test_a_time_in_any_known_format_is_read_as_unix_seconds(name):
    assert outcome_of(name).events[0].created == CREATED[name]


ANOMALIES = {
    "currency_change_on_success": ("oa14", {"conflicting_amount"}),
    "created_future": ("ob8", {"time_implausible"}),
    "payment_failed_after_success": ("od7", {"failed_after_success"}),
    "refund_only_payment_id_resent": ("od18", {"refund_identity_uncertain"}),
    "over_refund": ("od23", {"refund_exceeds_payment"}),
    "reference_changes_at_capture": ("M-26", {"conflicting_order"}),
    "one_payment_many_orders": ("pd27", {"order_reference_unreadable"}),
    "status_contradicts_type": ("od38", {"status_contradicts_type"}),
    "order_ref_both_differ": ("od46m", {"conflicting_order"}),
}


@pytest.mark.parametrize("name", ANOMALIES)
def test_a_payment_with_a_contradiction_counts_and_has_an_anomaly(name):
    order_id, anomalies = ANOMALIES[name]
    found = outcome_of(name)
    assert not found.rejected
    assert (found.order.order_id, set(found.order.anomalies)) == (order_id, anomalies)


def test_a_failure_before_the_success_is_no_anomaly():
    paid, failed = CASES["payment_failed_after_success"]["deliveries"]
    earlier = failed.replace("1796332000", "1795800000")
    assert fold([paid, earlier]).order.anomalies == ()


def test_an_event_with_an_implausible_time_gets_the_time_of_its_arrival():
    (event,) = outcome_of("created_future").events
    assert event.created == ARRIVED_S


def test_two_payments_whose_order_reference_is_a_placeholder_get_two_orders_with_an_anomaly():
    orders = outcome_of("oref_undefined").orders
    assert set(orders) == {"pc11", "pc11b"}
    assert all(each.anomalies == ("order_reference_unreadable",) for each in orders.values())


REFUNDED = {
    "data_id_number": ("oc2", 1000, ["rc2"]),
    "data_id_missing_refund": ("oc3", 1000, ["c3r"]),
    "refund_only_payment_id_resent": ("od18", 2000, ["d18r", "d18s"]),
    "refund_expanded_payment": ("od20", 1000, ["rd20"]),
    "refund_unknown_ref_field": ("od21", 1000, ["rd21"]),
    "late_paid_after_refund": ("od9", 5000, ["rd9"]),
    "refund_id_equals_other_payment": ("od48", 300, ["1", "1"]),
}


@pytest.mark.parametrize("name", REFUNDED)
def test_a_refund_counts_in_its_payment(name):
    order_id, refunded, refunds = REFUNDED[name]
    order = outcome_of(name).order
    assert (order.order_id, order.totals["KZT"].refunded) == (order_id, refunded)
    assert [refund.refund_id for each in order.payments for refund in each.refunds] == refunds


REJECTED = {
    "amount_null_refund": "amount_missing",
    "refund_without_currency": "currency_missing",
    "amount_bool": "amount_not_integer",
    "currency_spaces": "currency_unknown",
    "currency_numeric": "currency_unknown",
    "created_null": "created_unreadable",
    "data_null": "data_unreadable",
    "data_object_nesting": "id_missing",
    "retry_other_created": "event_id_reused",
}


@pytest.mark.parametrize("name", REJECTED)
def test_an_unreadable_or_ambiguous_event_is_rejected_with_the_expected_reason(name):
    (rejected,) = outcome_of(name).rejected
    assert rejected.rejection.reason == REJECTED[name]


SHOWN = {
    "amount_null_refund": ("oa6", "refused_event", "amount_missing"),
    "refund_without_currency": ("oa7", "refused_event", "currency_missing"),
    "retry_other_created": ("od3", "refused_event", "event_id_reused"),
    "refund_failed_after_success": ("od6", "unfolded_event", "unfolded"),
    "auth_then_partial_capture": ("od13", "unfolded_event", "unfolded"),
    "chargeback": ("od15", "unfolded_event", "unfolded"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_an_event_that_does_not_count_is_shown_in_its_order_with_an_anomaly(name):
    order_id, anomaly, outcome = SHOWN[name]
    order = outcome_of(name).order
    assert (order.order_id, order.anomalies) == (order_id, (anomaly,))
    assert [note.outcome for note in order.notes or ()] == [outcome]


ONCE = [
    "corrected_resend_same_id",
    "retry_other_created",
    "retry_attempt_field_toplevel",
    "dup_30x",
]


@pytest.mark.parametrize("name", ONCE)
def test_the_money_of_a_repeated_event_counts_once(name):
    found = outcome_of(name)
    assert len(found.events) == 1
    assert found.order.totals["KZT"].paid == 5000


def test_a_failed_payment_that_has_no_amount_counts():
    assert outcome_of("failed_without_amount").order.status == "failed"


@pytest.mark.parametrize("name", ["oref_surrogate", "nan_infinity"])
def test_a_body_that_is_not_json_is_no_envelope(name):
    (text,) = CASES[name]["deliveries"]
    assert not isinstance(decode_envelope(text.encode()), Envelope)


# Each case has its order's status and three sums (paid, refunded, charged back) with the rule set
# ``LIFECYCLE``.
BY_LIFECYCLE = {
    "refund_failed_after_success": ("paid", 5000, 0, 0),
    "multi_capture_own_ids": ("partially_refunded", 10000, 8000, 0),
    "auth_then_partial_capture": ("paid", 7000, 0, 0),
    "chargeback": ("charged_back", 10000, 0, 10000),
}


@pytest.mark.parametrize("name", BY_LIFECYCLE)
def test_a_lifecycle_event_counts_under_the_rule_set_named_lifecycle(name):
    order = fold(CASES[name]["deliveries"], Reading(rules=LIFECYCLE)).order
    totals = order.totals["KZT"]
    sums = (totals.paid, totals.refunded, totals.charged_back)
    assert (order.status, *sums) == BY_LIFECYCLE[name]
    assert order.anomalies == ()


BANK = PAYMENT | {"transactionId": "bank_1"}
REFUND = PAYMENT | {"id": "r", "payment_id": "p", "amount": 1000, "merchantReference": None}
BY_A_BANKS_ID = [
    ("payment.succeeded", PAYMENT, "payment.captured", BANK, (5000, 0)),
    ("payment.succeeded", BANK, "payment.succeeded", PAYMENT, (5000, 0)),
    ("payment.succeeded", BANK, "refund.succeeded", REFUND, (5000, 1000)),
    ("payment.authorized", BANK, "payment.captured", PAYMENT, (5000, 0)),
]


@pytest.mark.parametrize(("first", "data", "second", "other", "sums"), BY_A_BANKS_ID)
def test_the_banks_id_of_a_payment_does_not_make_a_second_payment(first, data, second, other, sums):
    deliveries = [event("e1", first, data), event("e2", second, other, 9)]
    order = fold(deliveries, Reading(rules=LIFECYCLE)).order
    totals = order.totals["KZT"]
    assert (totals.paid, totals.refunded, order.anomalies) == (*sums, ())


@pytest.mark.parametrize("kind", ["dispute", "charge.dispute", "payment.dispute"])
@pytest.mark.parametrize("opens", [True, False])
def test_a_closed_inquiry_about_a_payment_withholds_no_amount(kind, opens):
    dispute = PAYMENT | {"id": "d", "payment_id": "p"}
    opened = event("e2", f"{kind}.created", dispute | {"status": "warning_needs_response"})
    closed = event("e3", f"{kind}.closed", dispute | {"status": "warning_closed"}, 9)
    deliveries = [event("e1", "payment.succeeded", PAYMENT), *[opened] * opens, closed]
    order = fold(deliveries, Reading(rules=LIFECYCLE)).order
    assert (order.status, order.totals["KZT"].disputed, order.anomalies) == ("paid", 0, ())


@pytest.mark.parametrize("kind", ["dispute", "charge.dispute"])
def test_an_update_that_says_a_dispute_is_lost_has_the_same_effect_as_the_closing_event(kind):
    dispute = PAYMENT | {"id": "d", "payment_id": "p"}
    deliveries = [
        event("e1", "payment.succeeded", PAYMENT),
        event("e2", f"{kind}.created", dispute | {"status": "needs_response"}),
        event("e3", f"{kind}.updated", dispute | {"status": "under_review"}, 8),
        event("e4", f"{kind}.updated", dispute | {"status": "lost"}, 9),
        event("e5", f"{kind}.closed", dispute | {"status": "lost"}, 10),
    ]
    order = fold(deliveries, Reading(rules=LIFECYCLE)).order
    totals = order.totals["KZT"]
    assert (order.status, order.anomalies) == ("charged_back", ())
    assert (totals.disputed, totals.charged_back) == (0, 5000)


def test_every_case_has_a_test():
    tested = {*COUNTS, *ANOMALIES, *REFUNDED, *REJECTED, *SHOWN, *BY_LIFECYCLE, *OVER_HTTP}
    tested |= {"oref_undefined", "failed_without_amount", "oref_surrogate", "nan_infinity"}
    assert tested | set(ONCE) == set(CASES)
