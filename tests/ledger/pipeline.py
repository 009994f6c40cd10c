"""Folds payments and then orders, as the workers' agents do, but in memory."""

from collections.abc import Iterable, Iterator
from types import SimpleNamespace

from ledger.events import Event
from ledger.journal import Entry
from ledger.large_orders import Arrived, OrderState
from ledger.order_chunks import FoldedOrders
from ledger.orders import OrderDocument
from ledger.payments import Payment, Snapshot, fold_payments
from ledger.wire import ORDERS


class MemoryRows(dict[bytes, bytes]):
    """The rows of the table ``orders``, in memory."""

    def keys(self, start=b"", end=b"\xff" * 600, *, backwards=False) -> Iterator[bytes]:  # type: ignore[override]
        found = sorted(key for key in self if start <= key < end)
        return iter(found[::-1] if backwards else found)

    def write(self, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        for key, row in rows:
            if row is None:
                self.pop(key, None)
            else:
                self[key] = row


class OrdersHop:
    """The hop (agent) ``orders``: its input, its rows, and the last document under each key."""

    def __init__(self) -> None:
        self.arrived: list[Arrived] = []
        self.rows = MemoryRows()
        self.documents: dict[str, OrderDocument] = {}

    def publish(self, snapshots: Iterable[Snapshot]) -> list[Arrived]:
        """Append snapshots to ``ledger.payments``, and return them with their offsets."""
        first = len(self.arrived)
        self.arrived += [Arrived(first + n, each) for n, each in enumerate(snapshots)]
        return self.arrived[first:]

    def fold(self, arrived: list[Arrived], *, rows_written: int | None = None) -> int:
        """Fold a chunk, and return the number of rows that it changes.

        ``rows_written`` simulates a crash after this number of rows has been written.
        """
        known = {
            name: ORDERS.decode(row)
            for name in {each.snapshot.order_id for each in arrived}
            if (row := self.rows.get(name.encode()))
        }
        if not arrived:
            return 0
        places = [SimpleNamespace(offset=each.at) for each in arrived]
        folded = FoldedOrders([each.snapshot for each in arrived], places, known, self.rows)
        for order_id in folded.changed:
            document = folded.document(order_id)
            if document is None:
                self.documents.pop(order_id, None)
            else:
                self.documents[order_id] = document
        rows = list(folded.rows())
        self.rows.write(rows[:rows_written])
        return len(rows)


class Pipeline:
    """The content of the tables and topics; a repeated record with the same bytes counts once."""

    def __init__(self) -> None:
        self.payments: dict[str, Payment] = {}
        self.orders: dict[str, OrderState] = {}
        self.entries: dict[str, Entry] = {}
        self.aside: set[str] = set()
        self.hop = OrdersHop()

    def fold(self, chunks: Iterable[list[Event]], *, crash_before_state: bool = False) -> None:
        """Fold the chunks in sequence; ``crash_before_state`` loses the payments' new states."""
        for chunk in chunks:
            folded = fold_payments(chunk, self.payments)
            for entry in folded.entries:
                # A posted entry never changes: the same id always has the same content.
                assert self.entries.setdefault(entry.entry_id, entry) == entry
            self.aside |= {fact.event_id for fact in folded.aside}
            self.publish(folded.snapshots)
            if not crash_before_state:
                self.payments |= folded.payments

    def publish(self, snapshots: list[Snapshot]) -> None:
        arrived = self.hop.publish(snapshots)
        self.hop.fold(arrived)
        for name in {each.snapshot.order_id for each in arrived}:
            self.orders[name] = ORDERS.decode(self.hop.rows[name.encode()])

    def documents(self) -> dict[str, OrderDocument]:
        return dict(self.hop.documents)


def documents_of(events: Iterable[Event]) -> dict[str, OrderDocument]:
    """Fold events one by one, and return the orders' documents."""
    pipeline = Pipeline()
    pipeline.fold([event] for event in events)
    return pipeline.documents()
