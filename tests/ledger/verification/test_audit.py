"""The audit finds no difference in a state produced by the ledger, and reports each corruption.

A record is settled if the workers have folded it before the audit reads the tables.
"""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger.deduplication import DAY_MS, PROGRESS_KEY, Seen
from ledger.money import Money
from ledger.orders import Order, describe
from ledger.payments import Payment, Snapshot
from ledger.verification.audit import check_seen
from ledger.verification.differences import DifferenceKind
from ledger.wire import ORDER_DOCUMENTS, ORDERS, PAYMENTS, PROGRESS, SEEN
from tests.ledger.examples import failure, refund, success
from tests.ledger.verification.audited import (
    PARTITIONS,
    Ledger,
    body_of,
    example,
    kinds,
    partition_of,
)
from tests.strategies import chunked, histories

EVT_1 = (partition_of(b"evt_1"), b"evt_1")


@given(st.data())
def test_a_state_that_the_ledger_produced_has_no_difference(data: st.DataObject) -> None:
    history = data.draw(histories())
    ledger = Ledger(history, lambda events: data.draw(chunked(events)))
    assert ledger.differences() == []


@given(st.data())
def test_an_older_state_has_no_difference_while_the_later_records_are_not_settled(
    data: st.DataObject,
) -> None:
    history = data.draw(histories())
    ledger = Ledger(history)
    settled = ledger.log.ends()
    for event in data.draw(histories(max_size=4)):
        later = msgspec.structs.replace(event, event_id=f"{event.event_id}_later")
        ledger.log.append(body_of(later), later.event_id.encode())
    assert ledger.differences(settled=settled) == []


@given(st.data())
def test_a_state_that_is_ahead_of_the_settled_facts_has_no_difference(data: st.DataObject) -> None:
    ledger = Ledger(data.draw(histories()))
    settled = {p: data.draw(st.integers(0, end)) for p, end in ledger.log.ends().items()}
    assert ledger.differences(settled=settled) == []


@given(st.data())
def test_a_state_that_lacks_settled_facts_is_reported(data: st.DataObject) -> None:
    history = data.draw(histories())
    ledger = Ledger(history)
    late = msgspec.structs.replace(data.draw(st.sampled_from([success(), failure(), refund()])))
    late = msgspec.structs.replace(late, event_id="evt_late", data_id="pay_late")
    late = msgspec.structs.replace(late, payment_reference=None)
    ledger.log.append(body_of(late), b"evt_late")
    found = {difference.kind for difference in ledger.differences()}
    assert found >= {
        DifferenceKind.SEEN_MISSING,
        DifferenceKind.PAYMENT_MISSING,
        DifferenceKind.ORDER_MISSING,
    }


def altered(value: bytes, wire: Any, alter: Any) -> bytes:
    return bytes(wire.encode(alter(wire.decode(value))))


def with_amount(payment: Payment) -> Payment:
    fact = msgspec.structs.replace(payment.facts["evt_1"], money=Money(501, "KZT"))
    return msgspec.structs.replace(payment, facts=payment.facts | {"evt_1": fact})


def test_the_example_has_no_difference_and_has_a_payment_that_moved_to_another_order():
    ledger = example()
    assert ledger.differences() == []
    assert ORDERS.decode(ledger.orders[b"ord_2"]).payments["pay_3"].payment is None


def test_a_wrong_amount_in_the_table_is_reported_with_the_events_of_the_payment():
    ledger = example()
    ledger.payments[b"pay_1"] = altered(ledger.payments[b"pay_1"], PAYMENTS, with_amount)
    (found,) = ledger.differences()
    assert (found.kind, found.payment_id, found.order_id) == (
        DifferenceKind.PAYMENT_DIFFERS,
        "pay_1",
        "ord_1",
    )
    assert found.detail == "event evt_1: money.amount_minor: expected 500, got 501"
    assert [event.event_id for event in found.events] == ["evt_1", "evt_2"]


@pytest.mark.parametrize(
    ("alter", "detail"),
    [
        (lambda p: Payment("pay_2", p.facts), "its stored id is pay_2"),
        (lambda _: Payment("pay_1", {}), "it holds no fact"),
        (lambda p: Payment("pay_1", {"evt_1": p.facts["evt_1"]}), "it lacks event evt_2"),
        (
            lambda p: Payment("pay_1", p.facts | {"evt_9": success("evt_9")}),
            "the log has no event evt_9 about it",
        ),
    ],
)
def test_each_corruption_of_a_payment_is_reported(alter, detail):
    ledger = example()
    ledger.payments[b"pay_1"] = altered(ledger.payments[b"pay_1"], PAYMENTS, alter)
    (found,) = ledger.differences()
    assert (found.kind, found.detail) == (DifferenceKind.PAYMENT_DIFFERS, detail)


def _of_order(order: Order, payment_id: str, **changes: Any) -> Order:
    held = msgspec.structs.replace(order.payments[payment_id], **changes)
    return Order(order.order_id, order.payments | {payment_id: held})


def _paid(order: Order, amount: int) -> Order:
    payment = order.payments["pay_1"].payment
    return _of_order(order, "pay_1", payment=msgspec.structs.replace(payment, amount=amount))


@pytest.mark.parametrize(
    ("alter", "detail"),
    [
        (lambda o: Order("ord_9", o.payments), "its stored id is ord_9"),
        (lambda o: _paid(o, 400), "payment pay_1: amount: expected 500, got 400"),
        (
            lambda o: _of_order(o, "pay_1", version=7),
            "payment pay_1: version: expected 2, got 7",
        ),
        (
            lambda o: _of_order(o, "pay_1", payment=None),
            "payment pay_1: recorded as having left the order, but it belongs to the order",
        ),
        (
            lambda o: Order(o.order_id, {"pay_1": o.payments["pay_1"]}),
            "payment pay_2: it is not in the order",
        ),
        (
            lambda o: Order(
                o.order_id, o.payments | {"pay_9": Snapshot("ord_1", "pay_9", 1, None)}
            ),
            "payment pay_9: the log has no fact about it",
        ),
        (
            lambda o: Order(
                o.order_id, o.payments | {"pay_3": Snapshot("ord_1", "pay_3", 2, None)}
            ),
            "payment pay_3: it left the order, but was never in it",
        ),
        (
            lambda o: _of_order(o, "pay_1", order_id="ord_2"),
            "payment pay_1: its snapshot is of payment pay_1 in order ord_2",
        ),
    ],
)
def test_each_corruption_of_an_order_is_reported(alter, detail):
    ledger = example()
    ledger.orders[b"ord_1"] = altered(ledger.orders[b"ord_1"], ORDERS, alter)
    (found,) = ledger.differences()
    assert (found.kind, found.order_id, found.detail) == (
        DifferenceKind.ORDER_DIFFERS,
        "ord_1",
        detail,
    )
    assert found.events or "pay_9" in detail


def test_a_payment_that_left_its_order_at_a_version_above_its_number_of_facts_is_reported():
    ledger = example()
    ledger.orders[b"ord_2"] = altered(
        ledger.orders[b"ord_2"], ORDERS, lambda o: _of_order(o, "pay_3", version=3)
    )
    (found,) = ledger.differences()
    assert found.detail == (
        "payment pay_3: it left the order at version 3, but the log has 2 facts about it: expected "
        "a version from 2 to 2"
    )


def test_a_payment_that_belongs_to_another_order_is_reported():
    ledger = example()
    other = ORDERS.decode(ledger.orders[b"ord_3"]).payments["pay_3"]
    moved = msgspec.structs.replace(other, order_id="ord_1")
    ledger.orders[b"ord_1"] = altered(
        ledger.orders[b"ord_1"], ORDERS, lambda o: Order("ord_1", o.payments | {"pay_3": moved})
    )
    (found,) = ledger.differences()
    assert found.detail == "payment pay_3: it belongs to order ord_3"


def test_an_order_is_reported_if_it_still_has_a_payment_that_moved_to_another_order():
    ledger = example()
    stale = Ledger([success("evt_4", 5, 70, payment="pay_3", order="ord_2")])
    ledger.orders[b"ord_2"] = stale.orders[b"ord_2"]
    (found,) = ledger.differences()
    assert (found.kind, found.detail) == (
        DifferenceKind.ORDER_DIFFERS,
        "payment pay_3: it lacks event evt_5",
    )


def test_a_document_that_does_not_match_its_payments_is_reported():
    ledger = example()
    ledger.documents[b"ord_1"] = altered(
        ledger.documents[b"ord_1"],
        ORDER_DOCUMENTS,
        lambda document: msgspec.structs.replace(document, status="paid"),
    )
    (found,) = ledger.differences()
    assert found.kind == DifferenceKind.DOCUMENT_DIFFERS
    assert found.detail == "status: expected 'partially_refunded', got 'paid'"


def test_a_document_of_an_order_that_no_longer_has_payments_is_reported():
    ledger = example()
    stale = Ledger([success("evt_4", 5, 70, payment="pay_3", order="ord_2")])
    ledger.documents[b"ord_2"] = stale.documents[b"ord_2"]
    assert kinds(ledger) == [DifferenceKind.DOCUMENT_DIFFERS]


@pytest.mark.parametrize(
    ("holder", "key", "kind"),
    [
        ("payments", b"pay_2", DifferenceKind.PAYMENT_MISSING),
        ("orders", b"ord_3", DifferenceKind.ORDER_MISSING),
        ("documents", b"ord_3", DifferenceKind.DOCUMENT_MISSING),
    ],
)
def test_a_deleted_key_is_reported_as_missing(holder, key, kind):
    ledger = example()
    del getattr(ledger, holder)[key]
    assert kinds(ledger) == [kind]


@pytest.mark.parametrize(
    ("holder", "kind"),
    [
        ("payments", DifferenceKind.PAYMENT_UNEXPLAINED),
        ("orders", DifferenceKind.ORDER_UNEXPLAINED),
        ("documents", DifferenceKind.DOCUMENT_UNEXPLAINED),
    ],
)
def test_a_key_that_the_log_does_not_explain_is_reported_as_unexplained(holder, kind):
    ledger = example()
    other = Ledger([success("evt_9", payment="pay_9", order="ord_9")])
    getattr(ledger, holder).update(getattr(other, holder))
    assert kinds(ledger) == [kind]


@pytest.mark.parametrize("holder", ["payments", "orders", "documents"])
def test_unreadable_bytes_are_reported(holder):
    ledger = example()
    values = getattr(ledger, holder)
    key = min(values)
    values[key] = b"\xc1"
    (found,) = ledger.differences()
    assert found.kind.endswith("_differs")
    assert found.detail == "it can't be read"


def test_a_wrong_or_missing_or_unexplained_row_of_an_event_id_is_reported():
    ledger = example()
    place = (partition_of(b"evt_1"), b"evt_1")
    first = SEEN.decode(ledger.seen[place])
    ledger.seen[place] = SEEN.encode(Seen(b"0" * 16, first.offset, first.timestamp_ms))
    (found,) = ledger.differences()
    assert (found.kind, found.subject) == (DifferenceKind.SEEN_DIFFERS, "event evt_1")
    assert (found.payment_id, found.order_id) == ("pay_1", "ord_1")
    del ledger.seen[place]
    assert kinds(ledger) == [DifferenceKind.SEEN_MISSING]
    ledger = example()
    ledger.seen[0, b"evt_9"] = SEEN.encode(first)
    assert kinds(ledger) == [DifferenceKind.SEEN_UNEXPLAINED]


@pytest.mark.parametrize(
    ("held", "settled", "right"),
    [
        ((), 0, True),
        ((), 100, False),
        ((1,), 0, True),
        ((1, 2), 100, True),
        ((2,), 0, False),
        ((1, 2, 3), 100, False),
    ],
)
def test_a_table_may_lack_the_repeats_that_arrived_while_the_table_was_read(held, settled, right):
    ledger = Ledger([success("evt_1", payment="pay_1")] * 3)
    first = SEEN.decode(ledger.seen[EVT_1])
    assert first.repeats == (1, 2)
    ledger.seen[EVT_1] = SEEN.encode(replace(first, repeats=held))
    truth = ledger.truth()
    truth.settled = dict.fromkeys(range(PARTITIONS), settled)
    found = list(check_seen(truth, *EVT_1, ledger.seen[EVT_1]))
    assert [each.kind for each in found] == ([] if right else [DifferenceKind.SEEN_DIFFERS])


def _forgetful(*days: int) -> Ledger:
    """Return a ledger with an event, repeats of this event, and a different event on the last day.

    The different event is in the same partition, so it moves the partition's time to the last day.
    """
    events = [success("evt_1", payment="pay_1")] * (len(days) - 1)
    return Ledger([*events, success("evt_4", payment="pay_2")], days=days)


def test_the_two_events_of_the_forgetful_ledger_are_in_one_partition():
    assert partition_of(b"evt_1") == partition_of(b"evt_4")


def test_only_a_forgotten_id_may_be_deleted():
    for days, found in (((0, 90), [DifferenceKind.SEEN_MISSING]), ((0, 91), []), ((0, 50, 91), [])):
        ledger = _forgetful(*days)
        assert ledger.differences() == []
        del ledger.seen[EVT_1]
        assert kinds(ledger) == found


def test_an_id_that_is_seen_again_after_it_was_forgotten_has_a_new_row():
    ledger = _forgetful(0, 100, 150)
    assert SEEN.decode(ledger.seen[EVT_1]).offset == 1
    assert ledger.differences() == []
    before = _forgetful(0, 0).seen[EVT_1]
    ledger.seen[EVT_1] = before
    assert kinds(ledger) == [DifferenceKind.SEEN_DIFFERS]
    del ledger.seen[EVT_1]
    assert kinds(ledger) == [DifferenceKind.SEEN_MISSING]
    # Below, the repeat is not settled, so the workers may not have read it yet.
    settled = ledger.log.ends() | {partition_of(b"evt_1"): 1}
    for held in ({}, {EVT_1: before}):
        ledger.seen.pop(EVT_1, None)
        ledger.seen |= held
        assert kinds(ledger, settled=settled) == []


def test_an_unexplained_id_is_a_difference_unless_the_id_is_forgotten():
    ledger = _forgetful(0, 100)
    partition = partition_of(b"evt_1")
    first = SEEN.decode(ledger.seen[EVT_1])
    ledger.seen[partition, b"evt_9"] = SEEN.encode(first)
    assert ledger.differences() == []
    now = msgspec.structs.replace(first, timestamp_ms=first.timestamp_ms + 10 * DAY_MS)
    ledger.seen[partition, b"evt_9"] = SEEN.encode(now)
    assert kinds(ledger) == [DifferenceKind.SEEN_UNEXPLAINED]


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({}, []),
        ({"swept_to": b"evt_1"}, []),
        ({"oldest_ms": 1}, []),
        ({"offset": 0}, [DifferenceKind.SEEN_DIFFERS]),
        ({"offset": 2}, [DifferenceKind.SEEN_DIFFERS]),
        ({"timestamp_ms": 1}, [DifferenceKind.SEEN_DIFFERS]),
        ({"timestamp_ms": 2**53}, [DifferenceKind.SEEN_DIFFERS]),
    ],
)
def test_a_wrong_progress_of_a_partition_is_reported(more, found):
    ledger = _forgetful(0, 1)
    place = (partition_of(b"evt_1"), PROGRESS_KEY)
    progress = PROGRESS.decode(ledger.seen[place])
    assert progress.offset == 1
    ledger.seen[place] = PROGRESS.encode(msgspec.structs.replace(progress, **more))
    assert kinds(ledger) == found


def test_missing_or_unreadable_progress_is_reported_only_if_the_partition_was_folded():
    ledger = _forgetful(0, 1)
    place = (partition_of(b"evt_1"), PROGRESS_KEY)
    ledger.seen[place] = b"\xc1"
    assert kinds(ledger) == [DifferenceKind.SEEN_DIFFERS]
    del ledger.seen[place]
    (found,) = ledger.differences()
    assert (found.kind, found.subject) == (
        DifferenceKind.SEEN_MISSING,
        f"partition {place[0]} of seen",
    )
    ledger.seen = {}
    assert ledger.differences(settled={}) == []


@given(st.data())
def test_a_state_of_many_months_has_no_difference_with_or_without_rows_of_forgotten_ids(
    data: st.DataObject,
) -> None:
    history = data.draw(histories(max_size=8))
    history += data.draw(st.lists(st.sampled_from(history), max_size=8)) if history else []
    days = data.draw(st.lists(st.integers(0, 300), min_size=len(history), max_size=len(history)))
    ledger = Ledger(history, lambda events: data.draw(chunked(events)), days)
    assert ledger.differences() == []
    truth = ledger.truth()
    for (partition, key), value in list(ledger.seen.items()):
        forgotten = key != PROGRESS_KEY and truth.is_forgotten(partition, SEEN.decode(value))
        if forgotten and data.draw(st.booleans()):
            del ledger.seen[partition, key]
    assert ledger.differences() == []


def test_a_document_is_the_description_of_its_order():
    ledger = example()
    for key, value in ledger.documents.items():
        order = ORDERS.decode(ledger.orders[key])
        assert ORDER_DOCUMENTS.decode(value) == describe(order)
