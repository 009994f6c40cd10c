"""Gathers the rows of large orders, so that whole orders can be judged and compared.

Input: the rows of one partition of the table ``orders``. Output: one value for each order, small or
large, and the contradictions between the rows of an order.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from ledger.large_orders import (
    LargeOrder,
    OrderRows,
    OrderState,
    is_order_key,
    order_key_of,
)
from ledger.orders import Order, tally_of
from ledger.verification.fields import unlike
from ledger.wire import ORDERS, decoded


def gather(rows: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return one value for each order.

    For a large order, the value is its head row, with the order's other rows inside it. A crash can
    leave other rows although the head row was never written; these rows are left out.
    """
    values = {key: row for key, row in rows.items() if is_order_key(key)}
    others: dict[bytes, list[tuple[bytes, bytes]]] = {}
    for key, row in rows.items():
        if not is_order_key(key):
            others.setdefault(order_key_of(key), []).append((key, row))
    for key, parts in others.items():
        head = decoded(ORDERS.decode, values.get(key))
        if isinstance(head, LargeOrder):
            values[key] = ORDERS.encode(msgspec.structs.replace(head, rows=tuple(sorted(parts))))
    return values


def whole_order(order: OrderState) -> Order:
    """Return an order with the snapshots of all its payments."""
    if isinstance(order, Order):
        return order
    snapshots = {
        payment_id: held.counted_at(order.at) for payment_id, held in _rows_of(order).all_held()
    }
    return Order(order.order_id, {key: each for key, each in snapshots.items() if each})


def faults(order: LargeOrder, whole: Order) -> Iterator[str]:
    """Yield the contradictions between the rows of a large order."""
    if wrong_tally := unlike(tally_of(order.order_id, whole.payments.values()), order.tally):
        yield f"its head: {wrong_tally}"
    rows = _rows_of(order)
    expected = {key for each in whole.payments.values() for key in rows.entries_of(each)}
    moments = sorted(map(rows.moment, expected))
    first, last = (moments[0], moments[-1]) if moments else (None, None)
    if (order.first, order.last) != (first, last):
        yield (
            f"its head: expected first and last event {first} and {last}, "
            f"got {order.first} and {order.last}"
        )
    # The calendar entries of a payment are written together with its row, and the head is written
    # later. So the calendar is compared only if the head already counts every payment row.
    counted = all(held.at <= order.at for _, held in rows.all_held())
    if counted and expected != (calendar := set(rows.calendar())):
        wrong = sorted(map(rows.moment, expected ^ calendar))
        many = "1 entry is" if len(wrong) == 1 else f"{len(wrong)} entries are"
        yield f"its calendar: {many} missing or extra, such as {wrong[0]}"


def _rows_of(order: LargeOrder) -> OrderRows:
    return OrderRows(order, _Gathered(order.rows))


class _Gathered:
    """Rows in memory, sorted by key."""

    def __init__(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        self._rows = dict(rows)
        self._keys = sorted(self._rows)

    def get(self, key: bytes) -> bytes | None:
        return self._rows.get(key)

    def keys(self, start: bytes, end: bytes, *, backwards: bool) -> Iterator[bytes]:
        found = self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, end)]
        return iter(found[::-1] if backwards else found)
