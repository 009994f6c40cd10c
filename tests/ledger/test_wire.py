"""Decoding inverts encoding, equal values have equal bytes, and documents keep their shape."""

from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import wire
from ledger.currencies import MINOR_UNIT_DIGITS
from ledger.deduplication import Progress, Seen
from ledger.events import Event
from ledger.money import Money
from ledger.orders import Order
from ledger.payments import Payment, describe_placed, fold_payments
from tests.ledger.examples import refund, success
from tests.ledger.pipeline import Pipeline, documents_of
from tests.strategies import histories

NUMBERS = st.integers(0, 2**53 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SEEN = st.builds(Seen, st.binary(min_size=16, max_size=16), NUMBERS, st.integers(-1, 2**53 - 1))
PROGRESS = st.builds(Progress, st.binary(max_size=9), st.integers(-1, 2**53 - 1), NUMBERS)
EVENTS = st.builds(
    Event,
    event_id=TEXT,
    type=TEXT,
    created=NUMBERS,
    data_id=TEXT,
    money=st.builds(Money, NUMBERS, st.sampled_from(sorted(MINOR_UNIT_DIGITS))),
    status=st.none() | TEXT,
    order_reference=st.none() | TEXT,
    payment_reference=st.none() | TEXT,
    partition=st.integers(0, 2**31 - 1),
    offset=NUMBERS,
)


def written(history):
    """Return all values that the agents write for a list of events, by the name of their format."""
    pipeline, snapshots = Pipeline(), []
    for event in history:
        snapshots += fold_payments([event], pipeline.payments).snapshots
        pipeline.fold([[event]])
    return {
        "EVENTS": history,
        "SNAPSHOTS": snapshots,
        "ENTRIES": list(pipeline.entries.values()),
        "ORDER_DOCUMENTS": list(pipeline.documents().values()),
        "PLACED_PAYMENTS": [describe_placed(payment) for payment in pipeline.payments.values()],
        "PAYMENTS": list(pipeline.payments.values()),
        "ORDERS": list(pipeline.orders.values()),
    }


def assert_inverse(kind: wire.Format, value) -> None:
    encoded = kind.encode(value)
    decoded = kind.decode(encoded)
    assert decoded == value
    assert type(decoded) is type(value)
    assert kind.encode(decoded) == encoded


def test_every_format_is_tested():
    formats = {name for name, value in vars(wire).items() if isinstance(value, wire.Format)}
    assert formats == {*written([]), "SEEN", "PROGRESS"}


@settings(max_examples=100)
@given(histories(max_size=6))
def test_a_value_that_the_agents_write_is_decoded_and_encoded_again_to_the_same_bytes(history):
    for name, values in written(history).items():
        for value in values:
            assert_inverse(getattr(wire, name), value)


@given(EVENTS)
def test_any_event_is_read_as_it_was_written(event):
    assert_inverse(wire.EVENTS, event)


@given(SEEN, PROGRESS)
def test_the_rows_of_the_table_seen_are_read_as_they_were_written(seen, progress):
    assert_inverse(wire.SEEN, seen)
    assert_inverse(wire.PROGRESS, progress)


@settings(max_examples=100)
@given(st.data())
def test_equal_sets_of_facts_have_documents_of_equal_bytes(data):
    history = data.draw(histories(max_size=6))
    shuffled = data.draw(st.permutations(history))
    for name in ("ORDER_DOCUMENTS", "PLACED_PAYMENTS"):
        encode = getattr(wire, name).encode
        assert {*map(encode, written(shuffled)[name])} == {*map(encode, written(history)[name])}


@cache
def two_facts():
    pipeline = Pipeline()
    pipeline.fold([[success(order="A"), refund(), success("e2", payment="p_2", order="A")]])
    return pipeline


def test_equal_payments_have_equal_bytes_whichever_fact_came_first():
    payment = two_facts().payments["pay_1"]
    other = Payment(payment.payment_id, dict(reversed(payment.facts.items())))
    assert other == payment
    assert wire.PAYMENTS.encode(other) == wire.PAYMENTS.encode(payment)


def test_equal_orders_have_equal_bytes_whichever_payment_came_first():
    order = two_facts().orders["A"]
    other = Order("A", dict(reversed(order.payments.items())))
    assert other == order
    assert wire.ORDERS.encode(other) == wire.ORDERS.encode(order)


def test_sums_beyond_64_bits_are_written_and_read():
    events = [refund(f"e{n}", 1, 2**53 - 1, payment=f"p{n}", order="A") for n in range(2100)]
    pipeline = Pipeline()
    pipeline.fold([events])
    (document,) = pipeline.documents().values()
    assert document.totals["KZT"].net < -(2**64)
    assert_inverse(wire.ORDER_DOCUMENTS, document)
    assert_inverse(wire.ORDERS, pipeline.orders["A"])


# People and programs downstream rely on this shape: the keys, the sequence of the keys, and the
# types of the values.

PAYMENT = (
    '"payment_id":"pay_1","status":"succeeded","amount":500,"currency":"KZT","created":1,'
    '"refunds":[{"refund_id":"re_1","amount":100,"currency":"KZT","created":2,"event_id":"evt_r"}],'
    '"events":[{"event_id":"evt_1","type":"payment.succeeded","created":1,"partition":0,"offset":0},'
    '{"event_id":"evt_r","type":"refund.succeeded","created":2,"partition":0,"offset":1}],'
    '"anomalies":[]'
)
ORDER = (
    '{"order_id":"A","status":"partially_refunded","version":2,'
    '"totals":{"KZT":{"paid":500,"refunded":100,"net":400}},'
    f'"payments":[{{{PAYMENT}}}],"anomalies":[],"first_event":1,"last_event":2}}'
)
ENTRY = (
    '{"entry_id":"payment/pay_1/evt_1","payment_id":"pay_1","refund_id":null,"event_id":"evt_1",'
    '"created":1,"partition":0,"offset":0,"reverses":null,'
    '"postings":[{"account":"assets:plexy","amount":500,"currency":"KZT"},'
    '{"account":"income:sales","amount":-500,"currency":"KZT"}]}'
)
HISTORY = [success(order="A"), refund(offset=1)]


def test_an_orders_document_has_exactly_this_shape():
    (document,) = documents_of(HISTORY).values()
    assert wire.ORDER_DOCUMENTS.encode(document).decode() == ORDER


def test_a_payments_document_has_exactly_this_shape():
    (payment,) = fold_payments(HISTORY, {}).payments.values()
    placed = wire.PLACED_PAYMENTS.encode(describe_placed(payment)).decode()
    assert placed == f'{{{PAYMENT},"order_id":"A","version":2}}'


def test_an_entry_has_exactly_this_shape():
    entry = fold_payments(HISTORY, {}).entries[0]
    assert wire.ENTRIES.encode(entry).decode() == ENTRY


def test_an_empty_field_is_an_empty_list_or_null_and_never_omitted():
    (document,) = documents_of([refund()]).values()
    (payment,) = msgspec.json.decode(wire.ORDER_DOCUMENTS.encode(document))["payments"]
    assert (payment["amount"], payment["currency"]) == (None, None)
    paid = msgspec.json.decode(wire.ORDER_DOCUMENTS.encode(documents_of([success()])["pay_1"]))
    assert (paid["anomalies"], paid["payments"][0]["refunds"]) == ([], [])


@pytest.mark.parametrize("name", ["EVENTS", "SNAPSHOTS", "PAYMENTS", "ORDERS", "ENTRIES", "SEEN"])
@pytest.mark.parametrize("encoded", [b"", b"\xc1", b"{}", b"\x90"])
def test_bytes_that_contain_no_value_of_the_format_are_a_decoding_error(name, encoded):
    with pytest.raises(msgspec.DecodeError):
        getattr(wire, name).decode(encoded)
