"""Joins: one table value of two, for each table.

In: two states of the same key, as bytes, in any order. Out: the state that holds what either does.
A state is a set of facts, so of two that follow from the same log none is wrong, one may be older.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from ledger.deduplication import earlier
from ledger.orders import join_orders
from ledger.payments import join_payments
from ledger.topics import TableName
from ledger.wire import ORDERS, PAYMENTS, SEEN, Format

T = TypeVar("T")


def _of_bytes(wire: Format[T], join: Callable[[T, T], T]) -> Callable[[bytes, bytes], bytes]:
    def joined(one: bytes, other: bytes) -> bytes:
        if one == other:
            return one
        return bytes(wire.encode(join(wire.decode(one), wire.decode(other))))

    return joined


JOINS: Final[dict[TableName, Callable[[bytes, bytes], bytes]]] = {
    "seen": _of_bytes(SEEN, earlier),
    "payments": _of_bytes(PAYMENTS, join_payments),
    "orders": _of_bytes(ORDERS, join_orders),
}
