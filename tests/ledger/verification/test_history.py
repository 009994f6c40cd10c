"""A new fold of the log gives the outcome of each delivery, and an order's state at any time."""

import sys
from collections import Counter
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ledger.deduplication import DAY_MS
from ledger.events import Event
from ledger.signature import SignatureFault
from ledger.verification import history as ledger_history
from ledger.verification.history import (
    GOOD,
    NOT_CHECKED,
    Place,
    accepted,
    deliveries,
    events_of,
    order_of,
    steps,
)
from tests.ledger.examples import failure, refund, success
from tests.ledger.pipeline import documents_of
from tests.ledger.verification.audited import (
    NOW_S,
    RULES,
    SECOND_MS,
    TRUST,
    Log,
    logged,
    partition_of,
)
from tests.strategies import histories


def outcomes(records: list[Any]) -> list[tuple[str, str]]:
    return [(each.event_id, each.outcome) for each in deliveries(records, RULES, TRUST)]


def as_of(records, rules, order_id, at_ms):
    return ledger_history.as_of(records, rules, order_id, NOW_S * 1000 + at_ms)


def test_deliveries_are_listed_in_the_sequence_of_their_arrival_with_their_outcomes():
    paid = success("evt_1", order="ord_1")
    records = logged([paid, refund("evt_2"), paid, msgspec.structs.replace(paid, created=9), paid])
    assert outcomes(records) == [
        ("evt_1", "folded"),
        ("evt_2", "folded"),
        ("evt_1", "duplicate"),
        ("evt_1", "event_id_reused"),
        ("evt_1", "duplicate"),
    ]


def test_a_delivery_has_its_content_and_its_place_in_the_log():
    (record,) = logged([success("evt_1", created=7, order="ord_1")])
    (told,) = deliveries([record], RULES, TRUST)
    assert (told.type, told.created, told.received_at_ms) == (
        "payment.succeeded",
        NOW_S + 7,
        NOW_S * 1000,
    )
    assert (told.payment_id, told.order_reference) == ("pay_1", "ord_1")
    assert (told.amount, told.currency) == (500, "KZT")
    assert told.place == Place(partition_of(b"evt_1"), 0)
    assert (told.signature, told.body, told.headers) == (GOOD, None, None)


def test_on_request_a_delivery_has_the_raw_bytes_that_arrived():
    (record,) = logged([success("evt_1")])
    (told,) = deliveries([record], RULES, None, raw=True)
    assert (told.body, told.headers) == (record.value, dict(record.headers))
    assert told.signature == NOT_CHECKED
    assert msgspec.json.decode(msgspec.json.encode(told), type=type(told)) == told


def test_a_signature_that_is_no_longer_good_is_reported():
    records = logged([success("evt_1")], secret=b"whsec_test_key_another")
    (told,) = deliveries(records, RULES, TRUST)
    assert (told.outcome, told.signature) == ("folded", SignatureFault.MISMATCH)


def test_a_delivery_whose_body_is_not_an_event_has_the_reason_as_its_outcome():
    log = Log()
    log.append(b"{", b"evt_1")
    (told,) = deliveries(log.partitions[partition_of(b"evt_1")], RULES, None)
    assert (told.event_id, told.outcome, told.type) == ("evt_1", "malformed_json", None)
    assert told.detail


def test_a_past_state_ignores_events_that_occurred_earlier_but_arrived_later():
    late = success("evt_2", created=1, amount=70, payment="pay_2", order="ord_1")
    records = logged([success("evt_1", created=5, order="ord_1"), late])
    before = as_of(records, RULES, "ord_1", SECOND_MS - 1)
    after = as_of(records, RULES, "ord_1", SECOND_MS)
    assert before is not None
    assert after is not None
    assert before.totals["KZT"].paid == 500
    assert after.totals["KZT"].paid == 570
    assert as_of(records, RULES, "ord_1", -1) is None


def test_an_order_exists_only_until_its_payment_moves_to_another_order():
    """A fact that occurred earlier but arrived later names a different order."""
    moves = [
        success("evt_1", created=5, order="ord_1"),
        success("evt_2", created=4, order="ord_2"),
    ]
    records = logged(moves)
    assert as_of(records, RULES, "ord_1", 0) is not None
    assert as_of(records, RULES, "ord_1", SECOND_MS) is None
    assert as_of(records, RULES, "ord_2", SECOND_MS) is not None


def test_a_record_never_counts_as_arrived_before_an_earlier_record_of_the_log():
    """If a clock goes back, records keep their sequence, and the log's time does not go back."""
    names = [name for name in (f"evt_{n}" for n in range(99)) if partition_of(name.encode()) == 0]
    events = [
        success(name, payment=f"pay_{n}", amount=1, order="ord_1")
        for n, name in enumerate(names[:3])
    ]
    records = logged(events, [5_000, 1_000, 6_000])
    paid = [
        order.totals["KZT"].paid if order else 0
        for order in (as_of(records, RULES, "ord_1", at) for at in (1_000, 4_999, 5_000, 6_000))
    ]
    assert paid == [0, 0, 2, 3]


def test_deliveries_that_are_not_judged_yet_have_the_outcome_accepted():
    paid = success("evt_1", order="ord_1")
    told = accepted(logged([paid, paid]), TRUST, raw=True)
    assert [(each.event_id, each.outcome, each.place.offset) for each in told] == [
        ("evt_1", "accepted", 0),
        ("evt_1", "accepted", 1),
    ]
    assert {(each.signature, each.type, each.payment_id) for each in told} == {
        (GOOD, "payment.succeeded", None)
    }


def test_an_id_that_was_forgotten_counts_as_new():
    paid = success("evt_1")
    records = logged([paid, paid], [0, 91 * DAY_MS])
    assert outcomes(records) == [("evt_1", "folded"), ("evt_1", "folded")]


def test_clocks_that_go_back_do_not_reorder_the_records_of_a_partition():
    paid = success("evt_1")
    records = logged([paid, paid], [5_000, 1_000])
    told = deliveries(records, RULES, None)
    assert [(each.place.offset, each.outcome) for each in told] == [
        (0, "folded"),
        (1, "duplicate"),
    ]


@given(st.data())
def test_the_state_of_every_order_can_be_folded_from_its_deliveries(data: st.DataObject) -> None:
    history = data.draw(histories())
    again = data.draw(st.lists(st.sampled_from(history), max_size=4)) if history else []
    records = logged([*history, *again])
    events = events_of(records, RULES)
    for order_id, document in documents_of(events).items():
        assert order_of(events, order_id) == document
        assert as_of(records, RULES, order_id, 10**15) == document


@given(st.data())
def test_each_step_equals_the_order_at_the_time_when_the_steps_delivery_arrived(
    data: st.DataObject,
) -> None:
    history = data.draw(histories(max_size=6))
    records = logged(history)
    for order_id in documents_of(events_of(records, RULES)):
        for number, step in enumerate(steps(records, RULES, order_id)):
            then = as_of(records, RULES, order_id, number * SECOND_MS)
            assert step.version == (then.version if then else 0)
            assert step.status == (then.status if then else None)
            assert step.totals == (then.totals if then else {})


def _calls_of_steps(events: list[Event]) -> int:
    """Count the Python calls that compute the order's state after each delivery."""
    records, calls = logged(events), Counter[str]()
    sys.setprofile(lambda _frame, event, _of: calls.update([event]))
    try:
        steps(records, RULES, "ord_1")
    finally:
        sys.setprofile(None)
    return calls["call"]


def test_the_cost_of_a_step_does_not_grow_with_the_number_of_earlier_events():
    paid = success("evt_1", order="ord_1")
    many = [paid, *(failure(f"evt_f{n}", n, order="ord_1") for n in range(400))]
    assert _calls_of_steps(many) < 2.5 * _calls_of_steps(many[:200])
