"""The agent ``orders``: each order as its payments' snapshots.

In: chunks of ``ledger.payments``. Out: order documents to ``ledger.orders`` by order id, a
tombstone for an order that all payments have left; state: the table ``orders``, by order id.
"""

from ledger.orders import Order, describe, fold_orders
from ledger.wire import ORDER_DOCUMENTS, ORDERS, SNAPSHOTS
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
        effects.publish(app.names.orders, map(_document, changed.values()))
        effects.keep((key.encode(), ORDERS.encode(value)) for key, value in changed.items())

    app.add_hop("orders", app.names.payments, "orders", fold)


def _document(order: Order) -> OutRecord:
    document = describe(order)
    value = None if document is None else ORDER_DOCUMENTS.encode(document)
    return OutRecord(order.order_id.encode(), value)
