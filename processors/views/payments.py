"""Serves one payment, or all payments of an order, even if the order's document omits some."""

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from faust.web import Request, View

from ledger.large_orders import OrderState
from ledger.orders import Order
from ledger.payment_documents import PaymentDocument, PlacedPayment
from ledger.verification.history import Delivery, deliveries
from ledger.wire import PLACED_PAYMENTS
from processors.topology import LedgerApp
from processors.views import parameters, state, waiting
from processors.views.answers import json_answer, not_found, tagged_answer
from processors.views.deliveries import of_payment, rules_of
from runtime.kafka.topic_reader import in_time

# These limits bound the work for one page: a page may have to skip many payments that have left the
# order, and each of the other payments may be large.
_MOST_SEARCHED: Final = 500
_MOST_BYTES: Final = 1024 * 1024


class OrderPayments(msgspec.Struct):
    """A page of an order's payments, sorted by ``payment_id``.

    ``cursor`` is the next page's cursor, or ``None`` on the last page. A page may hold fewer
    payments than the limit, or none, and still have a next page.
    """

    order_id: str
    payments: list[PaymentDocument]
    cursor: str | None


class PaymentEvents(msgspec.Struct):
    """The deliveries that name a payment, sorted by their arrival."""

    payment_id: str
    deliveries: list[Delivery]


def add_pages(app: LedgerApp) -> None:
    """Declare the pages, the longer paths first, since an id may contain slashes."""

    @app.page(r"/orders/{order_id:[\s\S]+}/payments")
    @state.routed(app, "orders", "order_id")
    async def get_order_payments(_view: View, request: Request, *_args: Any, **path: Any) -> Any:
        """Return a page of an order's payments."""
        order_id: str = path["order_id"]
        limit, after = parameters.limit(request), parameters.cursor(request, str) or ""
        order = state.existing_order(app, order_id)
        page = page_of(order, payments_after(app, order, after), limit)
        return json_answer(msgspec.json.encode(page))

    @app.page(r"/payments/{payment_id:[\s\S]+}/events")
    @state.routed(app, "payments", "payment_id", state.reads_log)
    async def get_payment_events(_view: View, request: Request, *_args: Any, **path: Any) -> Any:
        """Return every delivery that names a payment, with its outcome."""
        payment_id: str = path["payment_id"]
        raw = parameters.flag(request, "raw")
        payment = state.placed_payment(app, payment_id)
        if payment is None:
            raise not_found("payment", payment_id)
        async with in_time(f"the deliveries of payment {payment_id!r:.80}"):
            records = await of_payment(app, payment)
        rules, trust = rules_of(app), app.settings.trust
        found = await asyncio.to_thread(deliveries, records, rules, trust, raw=raw)
        return json_answer(msgspec.json.encode(PaymentEvents(payment_id, found)))

    @app.page(r"/payments/{payment_id:[\s\S]+}")
    @state.routed(app, "payments", "payment_id", waiting.more_s)
    async def get_payment(_view: View, request: Request, *_args: Any, **path: Any) -> Any:
        """Return a payment's document, with the order that it belongs to."""
        payment_id: str = path["payment_id"]

        def folded() -> PlacedPayment | None:
            return state.placed_payment(app, payment_id)

        document = await waiting.until_folded(app, request, "payments", payment_id, folded)
        if document is None:
            raise not_found("payment", payment_id)
        return tagged_answer(request, PLACED_PAYMENTS.encode(document), document.version)


def payments_after(
    app: LedgerApp, order: OrderState, after: str
) -> Iterator[tuple[str, PaymentDocument | None]]:
    """Yield an order's payments, sorted by id; ``None`` for a payment that has left the order."""
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
