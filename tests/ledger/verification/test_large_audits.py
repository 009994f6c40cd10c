"""The audit compares orders and payments of any size with the log, and reports each difference."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import kept_facts, large_orders, order_chunks, orders, payments
from ledger.large_orders import LargeOrder
from ledger.verification.comparison import DOCUMENT_VIEW, ORDER_VIEW, Held, Versions, differences
from ledger.verification.differences import DifferenceKind
from ledger.verification.gathered_orders import gather
from ledger.wire import ORDER_DOCUMENTS, ORDERS, PAYMENTS
from tests.ledger.examples import refund, success
from tests.ledger.verification.audited import NOW_S, Ledger, kinds
from tests.strategies import chunked, histories


@pytest.fixture(scope="module", autouse=True)
def _small_bounds():
    """Make an order of two payments large, and let a payment keep only three or four facts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orders, "_ALWAYS_FIT_EVENTS", 0)
        patch.setattr(order_chunks, "MOST_ROW_BYTES", 200)
        for module in (orders, large_orders):
            patch.setattr(module, "MOST_PAYMENT_BYTES", 500)
        for module in (kept_facts, payments):
            patch.setattr(module, "ALWAYS_FIT", 1)
        patch.setattr(kept_facts, "MOST_FACT_BYTES", 320)
        yield


def example() -> Ledger:
    """Create an order of five payments, and an order whose only payment has too many facts."""
    many = [success(f"evt_{n}", n + 1, 100, payment=f"pay_{n}", order="ord_1") for n in range(5)]
    refunds = [
        refund(f"evt_r{n}", n + 9, 1, refund_id=f"re_{n}", payment="pay_x") for n in range(9)
    ]
    return Ledger([*many, success("evt_x", 1, 500, payment="pay_x", order="ord_2"), *refunds])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_sequence_of_the_events_and_no_division_into_chunks_causes_a_difference(
    data: st.DataObject,
) -> None:
    history = data.draw(histories(max_size=16))
    ledger = Ledger(history)
    order = {event.event_id: n for n, event in enumerate(data.draw(st.permutations(history)))}
    events = sorted(ledger.events(), key=lambda event: order[event.event_id])
    ledger.refold(events, lambda all_: data.draw(chunked(all_)))
    assert kinds(ledger) == []
    settled = {p: data.draw(st.integers(0, end)) for p, end in ledger.log.ends().items()}
    assert kinds(ledger, settled=settled) == []


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_two_versions_are_equal_even_if_only_one_version_stores_an_order_as_a_large_order(
    data: st.DataObject,
) -> None:
    history = data.draw(histories())
    old = Ledger(history)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_chunks, "MOST_ROW_BYTES", 10**9)
        new = Ledger(history)
    for view, before, after in (
        (ORDER_VIEW, old.orders, new.orders),
        (DOCUMENT_VIEW, old.documents, new.documents),
    ):
        for key in before.keys() | after.keys():
            held = Held(view, key, before.get(key), after.get(key))
            assert list(differences(new.truth(), held, Versions(1, 2))) == []


def change_head(ledger: Ledger) -> None:
    head = ORDERS.decode(ledger.rows[b"ord_1"])
    assert isinstance(head, LargeOrder)
    head.tally.payments += 1
    ledger.rows[b"ord_1"] = ORDERS.encode(head)


def change_first_event(ledger: Ledger) -> None:
    head = ORDERS.decode(ledger.rows[b"ord_1"])
    changed = msgspec.structs.replace(head, first=(2, "pay_1"))
    ledger.rows[b"ord_1"] = ORDERS.encode(changed)


def lose(start: bytes) -> Callable[[Ledger], None]:
    def lose_row(ledger: Ledger) -> None:
        key = next(key for key in ledger.rows if key.startswith(start))
        del ledger.rows[key]

    return lose_row


@pytest.mark.parametrize(
    ("alter", "detail"),
    [
        (change_head, "its head: payments: expected 5, got 6"),
        (change_first_event, f"its head: expected first and last event ({NOW_S + 1}, 'pay_0')"),
        (lose(b"ord_1\xfft"), "its calendar: 1 entry is missing or extra"),
        (lose(b"ord_1\xffp"), "payment pay_0: it is not in the order"),
    ],
)
def test_a_wrong_or_missing_row_of_a_large_order_is_reported(alter, detail):
    ledger = example()
    assert kinds(ledger) == []
    alter(ledger)
    ledger.orders = gather(ledger.rows)
    found = ledger.differences()
    assert {each.kind for each in found} == {DifferenceKind.ORDER_DIFFERS}
    assert any(each.detail.startswith(detail) for each in found), found


def test_a_wrong_summary_of_a_large_order_is_reported():
    ledger = example()
    document = ORDER_DOCUMENTS.decode(ledger.documents[b"ord_1"])
    assert document.summary
    wrong = msgspec.structs.replace(document, version=4)
    ledger.documents[b"ord_1"] = ORDER_DOCUMENTS.encode(wrong)
    (found,) = ledger.differences()
    assert (found.kind, found.detail) == (
        DifferenceKind.DOCUMENT_DIFFERS,
        "version: expected 5, got 4",
    )


def test_a_fact_that_is_kept_above_the_limit_or_missing_below_the_limit_is_reported():
    ledger = example()
    payment = PAYMENTS.decode(ledger.payments[b"pay_x"])
    facts = {fact.event_id: fact for fact in ledger.events() if fact.payment_id == "pay_x"}
    latest = max(payment.facts.values(), key=lambda fact: fact.created)
    more = msgspec.structs.replace(payment, facts=facts)
    less = {name: fact for name, fact in payment.facts.items() if fact != latest}
    for wrong, detail in (
        (more, "it should set aside event"),
        (msgspec.structs.replace(payment, facts=less), f"it lacks event {latest.event_id}"),
        (msgspec.structs.replace(payment, first_aside=None), "a fact should be set aside"),
        (msgspec.structs.replace(payment, first_aside=(9, "evt")), "the first fact set aside"),
    ):
        ledger.payments[b"pay_x"] = PAYMENTS.encode(wrong)
        (found,) = ledger.differences()
        assert found.kind is DifferenceKind.PAYMENT_DIFFERS
        assert found.detail.startswith(detail), found


def test_an_entry_that_is_not_reversed_although_its_fact_was_set_aside_is_reported():
    ledger = example()
    reversals = [entry for entry in ledger.entries if entry[0].endswith(b"/reversal")]
    assert reversals == []
    backwards = sorted(ledger.events(), key=lambda fact: -fact.created)
    ledger.refold(backwards, lambda events: [[each] for each in events])
    assert kinds(ledger) == []
    lost = next(entry for entry in ledger.entries if entry[0].endswith(b"/reversal"))
    ledger.entries.remove(lost)
    found = ledger.differences()
    assert DifferenceKind.ENTRY_DIFFERS in {each.kind for each in found}
    assert any("expected to stand: none" in each.detail for each in found)
