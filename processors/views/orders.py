"""The pages of one order: its state now or at an earlier time, its deliveries, and its proof."""

import asyncio
from typing import Any, Final

import msgspec
from faust.web import Request, View

from ledger.orders import OrderDocument
from ledger.records import SignedRecord
from ledger.verification.history import Delivery, as_of, deliveries
from ledger.wire import ORDER_DOCUMENTS
from processors.topology import LedgerApp
from processors.views import parameters, state, waiting
from processors.views.answers import ProblemError, json_answer, not_found, tagged_answer
from processors.views.deliveries import of_order, rules_of, whole_order
from processors.views.proofs import proof_of
from runtime.kafka.topic_reader import in_time

_ID: Final = r"{order_id:[\s\S]+}"


class OrderEvents(msgspec.Struct):
    """An order's deliveries, in the order of arrival."""

    order_id: str
    deliveries: list[Delivery]


def add_pages(app: LedgerApp) -> None:
    """Declare the pages, the longer paths first, since an order's id may contain slashes."""
    _add_events(app)
    _add_proof(app)
    _add_order(app)


def _add_order(app: LedgerApp) -> None:
    @app.page(f"/orders/{_ID}")
    @state.routed(app, "orders", "order_id", more_s)
    async def get_order(_view: View, request: Request, *_args: Any, **path: Any) -> Any:
        """Return an order's document, now or as of a time."""
        order_id: str = path["order_id"]
        at_ms = parameters.time_ms(request, "as_of")

        def folded() -> OrderDocument | None:
            return state.order_document(app, order_id)

        if at_ms is not None:
            document = await _as_of(app, order_id, at_ms)
        else:
            document = await waiting.until_folded(app, request, "orders", order_id, folded)
        if document is None and at_ms is not None:
            given = request.query["as_of"]
            detail = f"nothing of order {order_id!r:.80} had arrived by {given!r:.80}"
            raise ProblemError(404, "order_not_found", detail)
        if document is None:
            raise not_found("order", order_id)
        return tagged_answer(request, ORDER_DOCUMENTS.encode(document), document.version)


def more_s(request: Any) -> float:
    """Return how much longer than usual an order takes, in seconds."""
    return state.reads_log(request) if "as_of" in request.query else waiting.more_s(request)


async def _as_of(app: LedgerApp, order_id: str, at_ms: int) -> OrderDocument | None:
    records = await _deliveries(app, order_id)
    trust = app.settings.trust
    return await asyncio.to_thread(as_of, records, rules_of(app), order_id, at_ms, trust)


async def _deliveries(app: LedgerApp, order_id: str) -> list[SignedRecord]:
    async with in_time(f"the deliveries of order {order_id!r:.80}"):
        return await of_order(app, whole_order(app, order_id))


def _add_events(app: LedgerApp) -> None:
    @app.page(f"/orders/{_ID}/events")
    @state.routed(app, "orders", "order_id", state.reads_log)
    async def get_order_events(_view: View, request: Request, *_args: Any, **path: Any) -> Any:
        """Return every delivery of an order's events, with its outcome."""
        order_id: str = path["order_id"]
        raw = parameters.flag(request, "raw")
        records = await _deliveries(app, order_id)
        rules, trust = rules_of(app), app.settings.trust
        found = await asyncio.to_thread(deliveries, records, rules, trust, raw=raw)
        return json_answer(msgspec.json.encode(OrderEvents(order_id, found)))


def _add_proof(app: LedgerApp) -> None:
    @app.page(f"/orders/{_ID}/proof")
    @state.routed(app, "orders", "order_id", state.reads_log)
    async def get_proof(_view: View, _request: Request, *_args: Any, **path: Any) -> Any:
        """Return a file with all data behind an order, which `plexy-ledger prove` checks."""
        body = msgspec.json.encode(await proof_of(app, path["order_id"]))
        return json_answer(body, Content_Disposition='attachment; filename="proof.json"')
