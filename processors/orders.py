"""The agent ``orders``: folds the snapshots of payments into orders.

The agent reads chunks of ``ledger.payments``. To ``ledger.orders``, it writes order documents, with
the order id as the key. For an order that all payments have left, it writes a tombstone (a record
that deletes the key). The agent's state is the table ``orders``; ``ledger.large_orders`` describes
its rows.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial

from ledger.anomalies import changes_of, new_anomalies
from ledger.derived import Readings, read_snapshots
from ledger.large_orders import OrderState
from ledger.order_chunks import FoldedOrders
from ledger.payments import Snapshot
from ledger.wire import ORDER_DOCUMENTS, ORDERS
from processors.engine.chunk import Attributes, Chunk, FetchedRecord, Headers
from processors.engine.databases import PartitionRows
from processors.engine.effects import Effects
from processors.rows import decode_rows
from processors.set_aside import set_aside
from processors.topology import LedgerApp
from runtime.kafka.batches import OutRecord


def add_agent(app: LedgerApp) -> None:
    """Declare the agent."""
    orders = app.chunk_tables["orders"]

    def fold(chunk: Chunk, effects: Effects) -> None:
        readings = read_snapshots(chunk.records)
        set_aside(app, chunk, readings.rejected, effects)
        stored = decode_rows(orders, chunk.partition, effects.read(readings.keys), ORDERS.decode)
        known = {key.decode(): order for key, order in stored.items()}
        rows = PartitionRows(orders, chunk.partition)
        folded = FoldedOrders(readings.values, readings.records, known, rows)
        changed = folded.changed
        appeared: Counter[str] = Counter()
        # An order's document carries the trace of the order's last traced record.
        passed_on = {
            (each.key or b"").decode(): each.passed_on
            for each in readings.records
            if each.traceparent is not None
        }
        effects.publish(app.names.orders, _documents(folded, known, appeared, passed_on))
        effects.keep(folded.rows())
        effects.then(partial(app.metrics.appeared, appeared))
        effects.then(partial(app.anomalies.changed, chunk.partition, changes_of(changed, known)))
        effects.trace(_attributes(readings, folded, known))

    app.add_hop("orders", "orders", fold)


def _attributes(
    readings: Readings[FetchedRecord, Snapshot],
    folded: FoldedOrders,
    known: Mapping[str, OrderState],
) -> Iterator[tuple[FetchedRecord, Attributes]]:
    for record, snapshot in zip(readings.records, readings.values, strict=True):
        if record.traceparent is None:
            continue
        order_id, payment_id = snapshot.order_id, snapshot.payment_id
        order = folded.changed.get(order_id) or known.get(order_id)
        yield (
            record,
            {
                "ledger.payment.id": payment_id,
                "ledger.order.id": order_id,
                "ledger.order.version": order.version if order else 0,
                "ledger.outcome": "folded" if folded.is_new(snapshot) else "known",
            },
        )


def _documents(
    folded: FoldedOrders,
    known: Mapping[str, OrderState],
    appeared: Counter[str],
    passed_on: Mapping[str, Headers],
) -> Iterator[OutRecord]:
    """Yield the documents of orders that changed, and count their new anomalies."""
    for order_id in folded.changed:
        document = folded.document(order_id)
        value = None
        if document is not None:
            value = ORDER_DOCUMENTS.encode(document)
            appeared.update(new_anomalies(document, known.get(order_id)))
        yield OutRecord(order_id.encode(), value, passed_on.get(order_id, ()))
