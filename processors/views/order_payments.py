"""The payments of one order, page by page, even if the order's document does not list them."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from faust.web import Request, View

from ledger.large_orders import OrderState
from ledger.orders import Order
from ledger.payments import PaymentDocument
from processors.topology import LedgerApp
from processors.views import parameters, state
from processors.views.answers import json_answer

# A page skips the payments that have left the order, and each payment may be large.
_MOST_SEARCHED: Final = 500
_MOST_BYTES: Final = 1024 * 1024


class OrderPayments(msgspec.Struct):
    """A page of an order's payments, by ``payment_id``.

    ``cursor`` is that of the next page, or ``None`` on the last page. A page may hold fewer
    payments than the limit, or none, and still have a next page.
    """

    order_id: str
    payments: list[PaymentDocument]
    cursor: str | None


def add_pages(app: LedgerApp) -> None:
    """Declare the page."""

    @app.page(r"/orders/{order_id:[\s\S]+}/payments")
    @state.routed(app, "orders", "order_id")
    async def get_order_payments(_view: View, request: Request, *_args: Any, **path: Any) -> Any:
        """Return a page of an order's payments."""
        order_id: str = path["order_id"]
        limit, after = parameters.limit(request), parameters.cursor(request, str) or ""
        order = state.existing_order(app, order_id)
        page = page_of(order, payments_after(app, order, after), limit)
        return json_answer(msgspec.json.encode(page))


def payments_after(
    app: LedgerApp, order: OrderState, after: str
) -> Iterator[tuple[str, PaymentDocument | None]]:
    """Yield the payments of an order by their ids; ``None`` for one that has left."""
    if isinstance(order, Order):
        found = sorted(order.payments.items())
        return ((name, held.payment) for name, held in found if name > after)
    return state.order_rows(app, order).after(after)


def page_of(
    order: OrderState, payments: Iterator[tuple[str, PaymentDocument | None]], limit: int
) -> OrderPayments:
    """Return a page; it ends at the limit, or at the size that one answer may have."""
    found: list[PaymentDocument] = []
    end, size = "", 0
    for searched, (payment_id, payment) in enumerate(payments):
        if len(found) == limit or searched == _MOST_SEARCHED or size > _MOST_BYTES:
            return OrderPayments(order.order_id, found, parameters.written_cursor(end))
        end = payment_id
        if payment is not None:
            found.append(payment)
            size += len(msgspec.json.encode(payment))
    return OrderPayments(order.order_id, found, None)
