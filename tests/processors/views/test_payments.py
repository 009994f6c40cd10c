"""A page of an order's payments has limits on listed payments, skipped payments, and bytes."""

from collections.abc import Iterator

import pytest

from ledger.orders import Order
from ledger.payment_documents import PaymentDocument
from ledger.payments import fold_payments
from processors.views import parameters
from processors.views.payments import page_of, payments_after
from tests.ledger.examples import success

ORDER = Order("ord_1")


def payments(number: int, id_length: int = 0) -> Iterator[tuple[str, PaymentDocument | None]]:
    for n in range(number):
        event = success(f"{n:0>{id_length}}", payment=f"pay_{n:05}")
        (snapshot,) = fold_payments([event], {}).snapshots
        yield f"pay_{n:05}", snapshot.payment


def read(cursor: str | None) -> str:
    return parameters.read_cursor(cursor or "", str)


def test_a_page_ends_at_the_limit_and_its_cursor_names_the_last_payment():
    page = page_of(ORDER, payments(7), 5)
    assert [each.payment_id for each in page.payments] == [f"pay_{n:05}" for n in range(5)]
    assert read(page.cursor) == "pay_00004"
    assert page_of(ORDER, payments(5), 5).cursor is None


def test_a_page_skips_a_bounded_number_of_payments_that_have_left_the_order():
    page = page_of(ORDER, iter((f"pay_{n:05}", None) for n in range(2_000)), 5)
    assert page.payments == []
    assert read(page.cursor) == "pay_00499"


def test_a_page_ends_at_the_largest_size_of_an_answer(monkeypatch):
    monkeypatch.setattr("processors.views.payments._MOST_BYTES", 2_000)
    page = page_of(ORDER, payments(200, 500), 200)
    assert 1 < len(page.payments) < 10
    assert page.cursor is not None


@pytest.mark.parametrize(("after", "names"), [("", ["a", "b", "c"]), ("a", ["b", "c"]), ("c", [])])
def test_the_payments_of_a_small_order_are_listed_from_the_orders_single_row(after, names):
    snapshots = [
        fold_payments([success(name, payment=name, order="ord_1")], {}).snapshots[0]
        for name in ("b", "a", "c")
    ]
    order = Order("ord_1", {each.payment_id: each for each in snapshots})
    assert [name for name, _ in payments_after(None, order, after)] == names  # type: ignore[arg-type]
