"""The three folds in a row, in memory: what the agents do, without Kafka."""

from collections.abc import Iterable

from ledger.events import Event
from ledger.journal import Entry
from ledger.orders import Order, OrderDocument, describe, fold_orders
from ledger.payments import Payment, Snapshot, fold_payments


class Pipeline:
    """Holds what the tables and topics would hold; equal bytes under a key are written once."""

    def __init__(self) -> None:
        self.payments: dict[str, Payment] = {}
        self.orders: dict[str, Order] = {}
        self.entries: dict[str, Entry] = {}

    def fold(self, chunks: Iterable[list[Event]], *, crash_before_state: bool = False) -> None:
        """Fold chunk by chunk; a crash loses the state that a chunk would have written."""
        for chunk in chunks:
            folded = fold_payments(chunk, self.payments)
            for entry in folded.entries:
                # What was posted is never changed: the same id always has the same content.
                assert self.entries.setdefault(entry.entry_id, entry) == entry
            self.publish(folded.snapshots)
            if not crash_before_state:
                self.payments |= folded.payments

    def publish(self, snapshots: list[Snapshot]) -> None:
        self.orders |= fold_orders(snapshots, self.orders)

    def documents(self) -> dict[str, OrderDocument]:
        described = {order_id: describe(order) for order_id, order in self.orders.items()}
        return {order_id: document for order_id, document in described.items() if document}


def documents_of(events: Iterable[Event]) -> dict[str, OrderDocument]:
    """Fold events one by one."""
    pipeline = Pipeline()
    pipeline.fold([event] for event in events)
    return pipeline.documents()
