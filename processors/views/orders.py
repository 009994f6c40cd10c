"""The pages of one order: its state now or at an earlier time, its deliveries, and its proof.

Invariant: a proof has the state that the order's page shows. If the two states still differ after
some attempts, the ledger contradicts its log, and the view logs an error.
"""

import asyncio
from typing import Any, Final

import msgspec
import structlog
from faust.types import TP
from faust.web import Request, View
from msgspec import UNSET

from ledger.orders import Order, OrderDocument, describe
from ledger.records import SignedRecord
from ledger.verification.history import Delivery, as_of, deliveries
from ledger.verification.proof import Proof, make
from ledger.wire import ORDER_DOCUMENTS
from processors.topology import LedgerApp
from processors.views import parameters, state, waiting
from processors.views.answers import ProblemError, json_answer, not_found, tagged_answer
from processors.views.deliveries import of_order, rules_of, too_large, whole_order
from runtime.kafka.partitions import partition_for
from runtime.kafka.topic_reader import LogUnreadableError, in_time

log = structlog.get_logger(__name__)

_ID: Final = r"{order_id:[\s\S]+}"
_TRIES: Final = 3
_LOOK_EVERY_S: Final = 0.05
_MOST_SHOWN: Final = 10


class OrderEvents(msgspec.Struct):
    """The deliveries that name an order or its payments, sorted by their arrival."""

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
            detail = f"no event of order {order_id!r:.80} had arrived by {given!r:.80}"
            raise ProblemError(404, "order_not_found", detail)
        if document is None:
            raise not_found("order", order_id)
        return tagged_answer(request, ORDER_DOCUMENTS.encode(document), document.version)


def more_s(request: Any) -> float:
    """Return the additional time that the answer about an order may take, in seconds."""
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
        """Return every delivery that names an order or its payments, with its outcome."""
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
        """Return a file with all evidence for an order, which `plexy-ledger prove` checks."""
        body = msgspec.json.encode(await proof_of(app, path["order_id"]))
        return json_answer(body, Content_Disposition='attachment; filename="proof.json"')


async def proof_of(app: LedgerApp, order_id: str) -> Proof:
    """Return the proof of an order in this worker's partitions."""
    compared: list[tuple[Order, Proof]] = []
    try:
        async with in_time(f"the deliveries of order {order_id!r:.80}"):
            for _ in range(_TRIES):
                order = whole_order(app, order_id)
                records = await of_order(app, order)
                rules, trust = rules_of(app), app.settings.trust
                proof = await asyncio.to_thread(make, records, rules, order_id, trust)
                if proof.order == describe(order):
                    if proof.order is not None and proof.order.summary is not UNSET:
                        raise too_large("the order has too many payments to list")
                    return proof
                compared.append((order, proof))
                await _until_caught_up(app, order_id)
    except LogUnreadableError:
        if not compared:
            raise
    if len(compared) < _TRIES or any(each != compared[0] for each in compared):
        # The order changed while the log was read; the next attempt may succeed.
        raise ProblemError(503, "changing", "the order changed meanwhile; ask again")
    raise _contradiction(*compared[0])


async def _until_caught_up(app: LedgerApp, order_id: str) -> None:
    """Wait until the hop ``orders`` has folded all snapshots published so far for the order.

    The table ``payments`` may already have events that the order's document does not have yet.
    """
    partitions = app.settings.partitions
    tp = TP(app.names.payments, partition_for(order_id.encode(), partitions))
    end = (await app.reader.ends(tp.topic, partitions))[tp.partition]
    while (app.consumer.folded(tp) or 0) < end:
        state.require_ready(app)
        await asyncio.sleep(_LOOK_EVERY_S)


def _contradiction(order: Order, proof: Proof) -> ProblemError:
    got, expected = _fields(describe(order)), _fields(proof.order)
    names = [name for name in {**got, **expected} if got.get(name) != expected.get(name)]
    differences = "; ".join(
        f"{name}: got {got.get(name, '-'):.100}, expected {expected.get(name, '-'):.100}"
        for name in names[:_MOST_SHOWN]
    )
    log.error("an order contradicts the log", order_id=order.order_id, differences=differences)
    return ProblemError(
        500,
        "contradicts_log",
        f"the order differs from the fold of its {len(proof.records)} deliveries: {differences}",
    )


def _fields(document: OrderDocument | None) -> dict[str, str]:
    """Return an order's fields as JSON, with a field per payment; empty if there is no order."""
    if document is None:
        return {}
    fields = msgspec.structs.asdict(document)
    fields = {name: value for name, value in fields.items() if value is not UNSET}
    fields |= {f"payment {each.payment_id:.80}": each for each in fields.pop("payments")}
    return {name: msgspec.json.encode(value).decode() for name, value in fields.items()}
