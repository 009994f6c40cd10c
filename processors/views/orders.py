"""The pages of one order: its state now or at a time, its deliveries, its proof."""

import asyncio
from typing import Any, Final

import msgspec
from faust.web import Request, View

from ledger.history import Delivery, as_of, deliveries
from ledger.orders import Order, OrderDocument, describe
from ledger.proof import make
from ledger.wire import ORDER_DOCUMENTS
from processors.topology import LedgerApp
from processors.views import parameters, state
from processors.views.answers import (
    ProblemError,
    json_answer,
    not_found,
    tagged_answer,
)
from processors.views.deliveries import of_order, rules_of
from processors.views.waiting import until_folded

_ID: Final = r"{order_id:[\s\S]+}"


class OrderEvents(msgspec.Struct):
    """An order's deliveries, in the order of arrival."""

    order_id: str
    deliveries: list[Delivery]


def add_pages(app: LedgerApp) -> None:
    """Declare the pages; those below an order first, since an order's id may hold slashes."""
    _add_events(app)
    _add_proof(app)
    _add_order(app)


def _add_order(app: LedgerApp) -> None:
    @app.page(f"/orders/{_ID}")
    class OrderView(View):
        """One order's document, now or as of a time."""

        @state.routed(app, "orders", "order_id")
        async def get(self, request: Request, *_args: Any, **path: Any) -> Any:
            order_id: str = path["order_id"]
            at_ms = parameters.time_ms(request, "as_of")

            def folded() -> OrderDocument | None:
                order = state.order(app, order_id)
                return describe(order) if order else None

            if at_ms is not None:
                document = await _as_of(app, order_id, at_ms)
            else:
                document = await until_folded(app, request, folded)
            if document is None:
                raise not_found("order", order_id)
            return tagged_answer(request, ORDER_DOCUMENTS.encode(document), document.version)


async def _as_of(app: LedgerApp, order_id: str, at_ms: int) -> OrderDocument | None:
    records = await of_order(app, _existing(app, order_id))
    return await asyncio.to_thread(as_of, records, rules_of(app), order_id, at_ms)


def _add_events(app: LedgerApp) -> None:
    @app.page(f"/orders/{_ID}/events")
    class OrderEventsView(View):
        """Every delivery of an order's events, and what became of it."""

        @state.routed(app, "orders", "order_id")
        async def get(self, request: Request, *_args: Any, **path: Any) -> Any:
            order_id: str = path["order_id"]
            raw = parameters.flag(request, "raw")
            records = await of_order(app, _existing(app, order_id))
            rules, trust = rules_of(app), app.settings.trust
            found = await asyncio.to_thread(deliveries, records, rules, trust, raw=raw)
            return json_answer(msgspec.json.encode(OrderEvents(order_id, found)))


def _add_proof(app: LedgerApp) -> None:
    @app.page(f"/orders/{_ID}/proof")
    class ProofView(View):
        """One file with all that an order follows from; `plexy-ledger prove` checks it."""

        @state.routed(app, "orders", "order_id")
        async def get(self, _request: Request, *_args: Any, **path: Any) -> Any:
            order_id: str = path["order_id"]
            order = _existing(app, order_id)
            records = await of_order(app, order)
            proof = await asyncio.to_thread(make, records, rules_of(app), order_id)
            if proof.order != describe(order):
                # It goes on while the log is read: the next answer is of one moment again.
                raise ProblemError(503, "changing", "the order changed meanwhile; ask again")
            body = msgspec.json.encode(proof)
            return json_answer(body, Content_Disposition='attachment; filename="proof.json"')


def _existing(app: LedgerApp, order_id: str) -> Order:
    order = state.order(app, order_id)
    if order is None:
        raise not_found("order", order_id)
    return order
