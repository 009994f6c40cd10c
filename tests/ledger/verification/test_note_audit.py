"""The audit accepts correct notes about deliveries that do not count, and finds each wrong note."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from ledger.notes import counts
from ledger.orders import Order
from ledger.verification.differences import DifferenceKind as Kind
from ledger.verification.history import Rules, deliveries
from ledger.verification.proof import check, make
from ledger.wire import ORDER_DOCUMENTS, ORDERS, PAYMENTS, SEEN
from tests.ledger.examples import success
from tests.ledger.verification.audited import NOW_S, TRUST, Ledger, kinds, partition_of


def body(event_id, kind="payment.succeeded", **data) -> bytes:
    event = {"id": event_id, "type": kind, "created": NOW_S, "data": {"currency": "KZT", **data}}
    return json.dumps(event).encode()


REFUSED = body("evt_2", "refund.succeeded", id="re_1", payment_id="pay_1")
UNKNOWN = body("evt_3", "dispute.lost", id="dp_1", payment_id="pay_1", amount=5)
ONLY_NAMED = body("evt_4", id="pay_2", merchantReference="ord_2")
WITHOUT_PAYMENT = body("evt_5", amount=5, merchantReference="ord_1")
BODIES = (REFUSED, UNKNOWN, ONLY_NAMED, WITHOUT_PAYMENT, REFUSED)


def ledger(*more: bytes) -> Ledger:
    return Ledger([success("evt_1", NOW_S, 500, order="ord_1")], uncounted=[*BODIES, *more])


def test_a_ledger_with_notes_has_no_difference():
    found = ledger()
    assert found.differences() == []
    documents = found.pipeline.documents()
    assert {name: len(each.notes or ()) for name, each in documents.items()} == {
        "ord_1": 3,
        "ord_2": 1,
    }


@st.composite
def bodies(draw) -> list[bytes]:
    ids = st.sampled_from(["evt_1", "evt_2", "pay_1"])
    some = st.builds(
        body,
        ids,
        st.sampled_from(["payment.succeeded", "refund.succeeded", "dispute.lost"]),
        id=st.sampled_from(["pay_1", "pay_2", None]),
        amount=st.sampled_from([5, 6, None]),
        merchantReference=st.sampled_from(["ord_1", "pay_2", None]),
    )
    return draw(st.lists(some, max_size=7))


@given(bodies(), st.data())
def test_no_ledger_has_a_difference_whatever_part_of_the_log_is_settled(uncounted, data):
    found = Ledger([], uncounted=uncounted)
    assert found.differences() == []
    settled = {p: data.draw(st.integers(0, end)) for p, end in found.log.ends().items()}
    assert found.differences(settled=settled) == []


@given(bodies(), bodies())
def test_an_older_state_has_no_difference_while_later_deliveries_are_not_settled(earlier, later):
    found = Ledger([], uncounted=earlier)
    settled = found.log.ends()
    for each in later:
        found.log.append(each, json.loads(each)["id"].encode())
    assert found.differences(settled=settled) == []


@given(bodies())
def test_the_proof_of_an_order_is_correct_even_if_some_deliveries_do_not_count(uncounted):
    found = Ledger([], uncounted=uncounted)
    records = [record for part in found.log.partitions.values() for record in part]
    for order_id, document in found.pipeline.documents().items():
        proof = make(records, Rules(), order_id)
        assert proof.order == document
        assert check(proof, TRUST, sequences=20).faults == ()


def test_every_delivery_is_described_with_the_payment_or_order_that_it_names():
    found = ledger()
    records = [record for part in found.log.partitions.values() for record in part]
    told = {each.event_id: each for each in deliveries(records, Rules(), None)}
    assert (told["evt_3"].outcome, told["evt_3"].payment_id) == ("unfolded", "pay_1")
    assert (told["evt_4"].outcome, told["evt_4"].order_reference) == ("amount_missing", "ord_2")
    assert [each.outcome for each in deliveries(records, Rules(), None)].count("duplicate") == 1


def without_notes(payment):
    return replace(payment, notes=())


def with_other_reason(payment):
    return replace(payment, notes=tuple(replace(n, outcome="id_missing") for n in payment.notes))


@pytest.mark.parametrize(
    ("alter", "detail"),
    [
        (without_notes, "it lacks the note about event evt_2"),
        (with_other_reason, "its note about event evt_2"),
        (
            lambda payment: replace(
                payment, notes=(*payment.notes, replace(payment.notes[0], event_id="evt_9"))
            ),
            "it should have no note about event evt_9",
        ),
    ],
)
def test_each_wrong_note_of_a_payment_is_found(alter, detail):
    found = ledger()
    found.payments[b"pay_1"] = PAYMENTS.encode(alter(PAYMENTS.decode(found.payments[b"pay_1"])))
    (difference,) = found.differences()
    assert difference.kind == Kind.PAYMENT_DIFFERS
    assert detail in difference.detail


@pytest.mark.parametrize("payment_id", ["pay_1", "evt_5"])
def test_an_order_that_lacks_a_note_is_found(payment_id):
    found = ledger()
    order = ORDERS.decode(found.rows[b"ord_1"])
    assert isinstance(order, Order)
    snapshot = replace(order.payments[payment_id], notes=())
    without = replace(order, payments={**order.payments, payment_id: snapshot})
    found.orders[b"ord_1"] = ORDERS.encode(without)
    (difference,) = found.differences()
    assert difference.kind == Kind.ORDER_DIFFERS
    assert "it lacks the note about event" in difference.detail


def test_a_missing_payment_or_order_is_found_even_if_only_notes_name_it():
    found = ledger()
    del found.payments[b"pay_2"], found.orders[b"ord_2"], found.documents[b"ord_2"]
    assert kinds(found) == [Kind.DOCUMENT_MISSING, Kind.ORDER_MISSING, Kind.PAYMENT_MISSING]


def test_a_document_that_lacks_a_note_or_the_anomaly_of_a_note_is_found():
    for changes in ({"notes": UNSET}, {"anomalies": ()}, {"notes": UNSET, "anomalies": ()}):
        found = ledger()
        document = replace(ORDER_DOCUMENTS.decode(found.documents[b"ord_1"]), **changes)
        found.documents[b"ord_1"] = ORDER_DOCUMENTS.encode(document)
        assert set(kinds(found)) == {Kind.DOCUMENT_DIFFERS}


def test_void_notes_that_remain_after_a_retry_are_not_reported_as_differences():
    """A note is void if a retry has made the note's delivery count.

    After a fix, ``Truth`` has no note about a delivery that the workers refused before the fix.
    """
    found = ledger()
    fact = PAYMENTS.decode(found.payments[b"pay_1"]).facts["evt_1"]
    place = {"partition": fact.partition, "offset": fact.offset}
    (note, *_) = PAYMENTS.decode(found.payments[b"pay_1"]).notes
    void = replace(note, event_id="evt_1", order_reference="ord_3", payment_id=None, **place)
    mark = counts("evt_1", fact.partition, fact.offset, "evt_1")
    facts = [*found.events(), *found.notes, void, mark]
    found.refold(facts)
    assert PAYMENTS.decode(found.payments[b"evt_1"]).notes
    assert found.differences() == []


@pytest.mark.parametrize("event_id", ["evt_2", "evt_3"])
def test_a_row_that_lacks_a_correction_is_accepted_until_the_correction_is_settled(
    event_id,
):
    """The first delivery of `evt_2` was rejected; the first delivery of `evt_3` was not folded."""
    found = ledger()
    key = event_id.encode()
    settled = found.log.ends()
    correct = body(event_id, "refund.succeeded", id="re_1", payment_id="pay_1", amount=7)
    found.log.append(correct, key)
    assert found.differences(settled=settled) == []
    assert Kind.SEEN_DIFFERS in kinds(found)
    held = SEEN.decode(found.seen[partition_of(key), key])
    assert (held.digest, len(held.uncounted)) == (b"", 1)
