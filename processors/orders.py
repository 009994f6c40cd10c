"""The agent ``orders``: each order as its payments' snapshots.

In: chunks of ``ledger.payments``. Out: order documents to ``ledger.orders`` by order id, a
tombstone for an order that all payments have left; state: the table ``orders``, by order id.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial

from ledger.orders import Order, describe, fold_orders, new_anomalies
from ledger.wire import ORDER_DOCUMENTS, ORDERS, SNAPSHOTS
from processors.anomalies import changes_of
from processors.batches import OutRecord
from processors.chunk import Chunk
from processors.effects import Effects
from processors.topology import LedgerApp


def add_agent(app: LedgerApp) -> None:
    """Declare the agent."""
    orders = app.chunk_tables["orders"]

    def fold(chunk: Chunk, effects: Effects) -> None:
        snapshots = [SNAPSHOTS.decode(record.value or b"") for record in chunk.records]
        stored = orders.read_chunk(chunk.partition, chunk.keys)
        known = {key.decode(): ORDERS.decode(value) for key, value in stored.items()}
        changed = fold_orders(snapshots, known)
        appeared: Counter[str] = Counter()
        effects.publish(app.names.orders, _documents(changed, known, appeared))
        effects.keep((key.encode(), ORDERS.encode(value)) for key, value in changed.items())
        effects.then(partial(app.metrics.appeared, appeared))
        effects.then(partial(app.anomalies.changed, chunk.partition, changes_of(changed, known)))

    app.add_hop("orders", app.names.payments, "orders", fold)


def _documents(
    changed: Mapping[str, Order], known: Mapping[str, Order], appeared: Counter[str]
) -> Iterator[OutRecord]:
    """Yield the documents of orders that changed, and count the anomalies that are new to them."""
    for order_id, order in changed.items():
        document = describe(order)
        value = None
        if document is not None:
            value = ORDER_DOCUMENTS.encode(document)
            appeared.update(new_anomalies(document, known.get(order_id)))
        yield OutRecord(order_id.encode(), value)
