"""Folds a chunk (the snapshots that are folded together) into orders of any size.

Input: snapshots with their offsets, the earlier states of their orders, and the rows of the table.
Output: the orders that change, their documents, and the rows to write. The fold itself reads the
table, but does not write to it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, cast

from ledger.large_orders import (
    MOST_ROW_BYTES,
    Arrived,
    LargeOrder,
    OrderRows,
    OrderState,
    StoredRows,
    describe_large,
    fold_large,
    split,
)
from ledger.orders import Order, OrderDocument, describe, fold_orders
from ledger.payments import Snapshot
from ledger.wire import ORDERS


class Placed(Protocol):
    """A record of the topic ``ledger.payments``."""

    @property
    def offset(self) -> int:
        """The record's offset in its partition."""


class FoldedOrders:
    """The orders that a chunk changes; ``changed`` holds their new states, by id."""

    def __init__(
        self,
        snapshots: Sequence[Snapshot],
        records: Sequence[Placed],
        known: Mapping[str, OrderState],
        rows: StoredRows,
    ) -> None:
        """Fold the ``snapshots`` of ``records``; ``known`` holds the orders' earlier states."""
        self._known = known
        self._rows = rows
        self._large: dict[str, OrderRows] = {}
        self._last_offset = records[-1].offset if records else 0
        large = {name: each for name, each in known.items() if isinstance(each, LargeOrder)}
        # Large orders are folded separately; few chunks contain a snapshot for a large order.
        others = [each for each in snapshots if each.order_id not in large] if large else snapshots
        small = cast("Mapping[str, Order]", known)
        self.changed: dict[str, OrderState] = {**fold_orders(others, small)}
        self._fold_large(large, snapshots, records)

    def is_new(self, snapshot: Snapshot) -> bool:
        """Return whether a snapshot of the chunk is later than its payment's known snapshot."""
        order = self._known.get(snapshot.order_id)
        if isinstance(order, LargeOrder):
            rows = OrderRows(order, self._rows)
            return snapshot.is_newer_than(rows.counted(snapshot.payment_id))
        return order is None or snapshot.is_newer_than(order.payments.get(snapshot.payment_id))

    def document(self, order_id: str) -> OrderDocument | None:
        """Return the new document of an order; ``None`` if no payment and no note is left in it."""
        order = self.changed[order_id]
        if isinstance(order, Order):
            return describe(order)
        return describe_large(order, self._large[order_id])

    def rows(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield the rows to write; an order's head follows its other rows."""
        for order_id, order in self.changed.items():
            row = ORDERS.encode(order)
            if isinstance(order, LargeOrder):
                yield from self._large[order_id].changed.items()
            elif len(row) > MOST_ROW_BYTES:
                head, others = split(order, self._last_offset, self._rows)
                yield from others.changed.items()
                row = ORDERS.encode(head)
            yield order_id.encode(), row

    def _fold_large(
        self,
        large: Mapping[str, LargeOrder],
        snapshots: Sequence[Snapshot],
        records: Sequence[Placed],
    ) -> None:
        if not large:
            return
        arrived: dict[str, list[Arrived]] = {order_id: [] for order_id in large}
        for snapshot, record in zip(snapshots, records, strict=True):
            if snapshot.order_id in large:
                arrived[snapshot.order_id].append(Arrived(record.offset, snapshot))
        for order_id, order in large.items():
            rows = OrderRows(order, self._rows)
            new = fold_large(order, arrived[order_id], rows)
            if new is not None:
                self.changed[order_id] = new
                self._large[order_id] = rows
