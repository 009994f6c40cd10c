"""The proof of an order, compared with the order's state on this worker.

Invariant: a proof has the state that the order's page shows. If the two states keep differing, the
ledger contradicts its log, which is logged as an error.
"""

import asyncio
from typing import Final

import msgspec
import structlog
from faust.types import TP
from msgspec import UNSET

from ledger.orders import Order, OrderDocument, describe
from ledger.verification.proof import Proof, make
from processors.topology import LedgerApp
from processors.views import state
from processors.views.answers import ProblemError
from processors.views.deliveries import of_order, rules_of, too_large, whole_order
from runtime.kafka.partitions import partition_for
from runtime.kafka.topic_reader import LogUnreadableError, in_time

log = structlog.get_logger(__name__)

_TRIES: Final = 3
_LOOK_EVERY_S: Final = 0.05
_MOST_SHOWN: Final = 10


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

    The table of payments, and so a payment's list of events, may be ahead of the order.
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
    if document.summary is UNSET:
        del fields["summary"]
    fields |= {f"payment {each.payment_id:.80}": each for each in fields.pop("payments")}
    return {name: msgspec.json.encode(value).decode() for name, value in fields.items()}
