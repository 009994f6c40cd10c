"""The oracle, which predicts orders, agrees with sums computed by hand, and with the ledger."""

import time
from random import Random
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.simulate import oracle
from cli.simulate.oracle import CheckedOrder, CheckedPayment, CheckedRefund, CheckedTotals
from cli.simulate.schedule import deliveries
from cli.simulate.stories import Dialects
from ledger.deduplication import deduplicate
from ledger.dialects import pay_headers
from ledger.envelope import decode_envelope
from ledger.events import Reading
from ledger.lifecycle import BUILT_IN
from ledger.pay import PayAmounts, decode_notification
from ledger.wire import ORDER_DOCUMENTS
from tests.ledger.pipeline import documents_of


def _body(event_id, kind, created, **data):
    return msgspec.json.encode({"id": event_id, "type": kind, "created": created, "data": data})


_KZT = {"amount": 500, "currency": "KZT"}
_EXAMPLE = [
    _body("e1", "payment.failed", 10, id="pay_1", **_KZT),
    _body("e2", "payment.succeeded", 20, id="pay_1", metadata={"orderId": 17}, **_KZT),
    _body("e3", "refund.succeeded", 30, id="re_1", originalReference="pay_1", **_KZT),
    _body("e4", "refund.succeeded", 5, id="pay_2", paymentId="", amount=2, currency="JPY"),
    _body("e5", "payment.succeeded", 40, id="pay_2", order="17", amount=2**53 - 1, currency="JPY"),
    _body("e6", "payout.paid", 1, id="pay_1", order="99", amount=9, currency="KZT"),
]


def test_a_small_example_agrees_with_sums_computed_by_hand():
    found = oracle.orders([*_EXAMPLE, _EXAMPLE[1], _EXAMPLE[2]])
    assert found == {
        "17": CheckedOrder(
            status="partially_refunded",
            version=5,
            totals={
                "JPY": CheckedTotals(9007199254740991, 2, 9007199254740989),
                "KZT": CheckedTotals(500, 500, 0),
            },
            payments=(
                CheckedPayment(
                    "pay_1", "succeeded", 500, "KZT", (CheckedRefund("re_1", 500, "KZT", 30),)
                ),
                CheckedPayment(
                    "pay_2", "succeeded", 2**53 - 1, "JPY", (CheckedRefund("e4", 2, "JPY", 5),)
                ),
            ),
        ),
        # While the payments were unknown, the refunds were in orders named after the payments. Now
        # these orders are empty.
        "pay_1": None,
        "pay_2": None,
        # The only event that names this order is not counted.
        "99": CheckedOrder("unknown", 0, {}, ()),
    }


def test_the_totals_of_the_trial_balance_are_sums_by_currency():
    totals = {"KZT": CheckedTotals(5, 2, 3)}
    order = CheckedOrder(status="paid", version=1, totals=totals, payments=())
    assert oracle.trial_totals([order, None, order]) == {"KZT": CheckedTotals(10, 4, 6)}


def test_every_order_that_an_unacknowledged_event_may_change_is_undecided():
    assert oracle.touched(_EXAMPLE, ["e2"]) == {"17", "pay_1"}
    assert oracle.touched(_EXAMPLE, ["e6"]) == {"99"}


def _record(offset, body, amounts, now_ms):
    """Return a record of the log with this body, and with the headers of the body's dialect."""
    is_pay = "name" in msgspec.json.decode(body)
    envelope = decode_notification(body, amounts) if is_pay else decode_envelope(body)
    return SimpleNamespace(
        key=envelope.id.encode(),
        value=body,
        partition=0,
        offset=offset,
        timestamp=now_ms,
        headers=pay_headers(amounts) if is_pay else (),
    )


def _folded(bodies, rules="seed", amounts=PayAmounts.MINOR):
    """Fold the bodies as the ledger does; return the orders in the form that the views serve."""
    now_ms = time.time_ns() // 1_000_000
    records = [_record(n, body, amounts, now_ms) for n, body in enumerate(bodies)]
    result = deduplicate(records, {}, Reading(rules=BUILT_IN[rules]))
    return {
        order_id: msgspec.json.decode(ORDER_DOCUMENTS.encode(document), type=CheckedOrder)
        for order_id, document in documents_of([*result.events, *result.notes]).items()
    }


@pytest.mark.parametrize("rules", ["seed", "lifecycle"])
@given(seed=st.integers(0, 10**9), events=st.integers(1, 120), sample=st.floats(0, 1))
def test_the_oracle_and_the_ledger_agree_on_any_part_of_any_simulation(rules, seed, events, sample):
    bodies = [each.body for each in deliveries(seed, events, rules)]
    part = Random(seed).sample(bodies, int(len(bodies) * sample))
    predicted = oracle.orders(part, rules)
    assert {name: order for name, order in predicted.items() if order} == _folded(part, rules)


@pytest.mark.parametrize("rules", ["seed", "lifecycle"])
@given(
    seed=st.integers(0, 10**9),
    events=st.integers(1, 120),
    dialects=st.builds(Dialects, sdk=st.booleans(), pay=st.sampled_from(PayAmounts)),
)
def test_the_oracle_and_the_ledger_agree_on_both_dialects(rules, seed, events, dialects):
    bodies = [each.body for each in deliveries(seed, events, rules, dialects)]
    part = Random(seed).sample(bodies, len(bodies) * 3 // 4)
    predicted = oracle.orders(part, rules, in_major=dialects.pay is PayAmounts.MAJOR)
    folded = _folded(part, rules, dialects.pay)
    assert {name: order for name, order in predicted.items() if order} == folded


@given(seed=st.integers(0, 10**9), owed=st.integers(1, 10), kept=st.integers(0, 10))
def test_unacknowledged_events_change_only_undecided_orders(seed, owed, kept):
    sent = list({each.event_id: each for each in deliveries(seed, 80)}.values())
    Random(seed).shuffle(sent)
    unsure, sure = sent[:owed], sent[owed:]
    undecided = oracle.touched([each.body for each in sent], [each.event_id for each in unsure])
    without = oracle.orders(each.body for each in sure)
    truth = oracle.orders(each.body for each in [*sure, *unsure[:kept]])
    decided = (without.keys() | truth.keys()) - undecided
    assert all(without.get(name) == truth.get(name) for name in decided)
