"""The agent ``orders``: each order as its payments' snapshots.

In: chunks of ``ledger.payments``. Out: order documents to ``ledger.orders`` by order id, a
tombstone for an order that all payments have left; state: the table ``orders``, by order id.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial

from ledger.anomalies import changes_of
from ledger.derived import Readings, read_snapshots
from ledger.orders import Order, describe, fold_orders, new_anomalies
from ledger.payments import Snapshot
from ledger.wire import ORDER_DOCUMENTS, ORDERS
from processors.batches import OutRecord
from processors.chunk import Chunk, FetchedRecord, Headers
from processors.effects import Attributes, Effects
from processors.rows import decode_rows
from processors.set_aside import set_aside
from processors.topology import LedgerApp


def add_agent(app: LedgerApp) -> None:
    """Declare the agent."""
    orders = app.chunk_tables["orders"]

    def fold(chunk: Chunk, effects: Effects) -> None:
        readings = read_snapshots(chunk.records)
        snapshots = readings.values
        set_aside(app, chunk, readings.rejected, effects)
        stored = effects.read(readings.keys)
        rows = decode_rows(orders, chunk.partition, stored, ORDERS.decode)
        known = {key.decode(): order for key, order in rows.items()}
        changed = fold_orders(snapshots, known)
        appeared: Counter[str] = Counter()
        # Of several records of an order, its document names the last one's trace.
        passed_on = {
            (each.key or b"").decode(): each.passed_on
            for each in readings.records
            if each.traceparent is not None
        }
        effects.publish(app.names.orders, _documents(changed, known, appeared, passed_on))
        effects.keep((key.encode(), ORDERS.encode(value)) for key, value in changed.items())
        effects.then(partial(app.metrics.appeared, appeared))
        effects.then(partial(app.anomalies.changed, chunk.partition, changes_of(changed, known)))
        effects.trace(_attributes(readings, changed, known))

    app.add_hop("orders", "orders", fold)


def _attributes(
    readings: Readings[FetchedRecord, Snapshot],
    changed: Mapping[str, Order],
    known: Mapping[str, Order],
) -> Iterator[tuple[FetchedRecord, Attributes]]:
    for record, snapshot in zip(readings.records, readings.values, strict=True):
        if record.traceparent is None:
            continue
        order_id, payment_id = snapshot.order_id, snapshot.payment_id
        before = known.get(order_id)
        order = changed.get(order_id) or before
        is_new = before is None or snapshot.is_newer_than(before.payments.get(payment_id))
        yield (
            record,
            {
                "ledger.payment.id": payment_id,
                "ledger.order.id": order_id,
                "ledger.order.version": order.version if order else 0,
                "ledger.outcome": "folded" if is_new else "known",
            },
        )


def _documents(
    changed: Mapping[str, Order],
    known: Mapping[str, Order],
    appeared: Counter[str],
    passed_on: Mapping[str, Headers],
) -> Iterator[OutRecord]:
    """Yield the documents of orders that changed, and count the anomalies that are new to them."""
    for order_id, order in changed.items():
        document = describe(order)
        value = None
        if document is not None:
            value = ORDER_DOCUMENTS.encode(document)
            appeared.update(new_anomalies(document, known.get(order_id)))
        yield OutRecord(order_id.encode(), value, passed_on.get(order_id, ()))
