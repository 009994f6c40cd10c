"""The anomalous orders of a partition, listed by anomaly.

Input: the orders in the table, and the changes that each chunk of records makes to the orders.
Output: for each anomaly, the number of orders that have it, and the keys of these orders. The key
of the order with the latest event comes first. The orders themselves are not kept in memory. An
order takes one short key, and one place in the list of each of its anomalies.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from ledger.large_orders import OrderState, is_order_key
from ledger.orders import OrderDocument
from ledger.wire import ORDERS

ANY_ANOMALY: Final = "any"
"""The name of the list of all orders with an anomaly."""

_TIME_BYTES: Final = 8


class Anomalous(NamedTuple):
    """An order's key, and the names of the lists that contain it."""

    key: bytes
    names: frozenset[str]


class Changed(NamedTuple):
    """The list entries that a chunk removes (``before``) and adds (``now``)."""

    before: list[Anomalous]
    now: list[Anomalous]


class AnomalousOrders:
    """The keys of orders with anomalies, by anomaly."""

    def __init__(self) -> None:
        self._keys: dict[str, _SortedKeys] = {}

    def take(self, key: bytes, value: bytes) -> None:
        """Add an order to the lists, if this row of the table ``orders`` is the row of an order."""
        if is_order_key(key):
            self._add(_anomalous(ORDERS.decode(value)))

    def change(self, change: Changed) -> None:
        """Apply the changes of a chunk; raise ``ValueError`` for a key that is not listed."""
        for key, names in change.before:
            for name in names:
                self._keys.setdefault(name, _SortedKeys()).remove(key)
        self._add(change.now)

    def counts(self) -> dict[str, int]:
        """Return the number of orders with each anomaly; ``any`` counts each order once."""
        return {name: len(keys) for name, keys in self._keys.items() if len(keys)}

    def latest(self, name: str, below: bytes | None) -> Iterator[bytes]:
        """Yield a list's keys, highest first; if ``below`` is given, only keys lower than it."""
        keys = self._keys[name].all() if name in self._keys else []
        end = len(keys) if below is None else bisect_left(keys, below)
        return (keys[at] for at in range(end - 1, -1, -1))

    def _add(self, orders: Iterable[Anomalous]) -> None:
        for key, names in orders:
            for name in names:
                self._keys.setdefault(name, _SortedKeys()).add(key)


class _SortedKeys:
    """Keys that are sorted only when they are read, so that changes are cheap.

    A chunk may change thousands of keys. To insert each of them into a sorted list of a million
    keys would take seconds.
    """

    def __init__(self) -> None:
        self._sorted: list[bytes] = []
        self._new: set[bytes] = set()
        self._gone: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._new) - len(self._gone)

    def add(self, key: bytes) -> None:
        """Add a new key."""
        if key in self._gone:
            self._gone.discard(key)
        else:
            self._new.add(key)

    def remove(self, key: bytes) -> None:
        """Remove a key; raise ``ValueError`` if it is unknown."""
        if key in self._new:
            self._new.discard(key)
            return
        at = bisect_left(self._sorted, key)
        if key in self._gone or self._sorted[at : at + 1] != [key]:
            raise ValueError(f"{key!r} is not among the orders with this anomaly")
        self._gone.add(key)

    def all(self) -> list[bytes]:
        """Return all keys, sorted."""
        if self._new or self._gone:
            kept = [key for key in self._sorted if key not in self._gone]
            # This is fast, because `sorted` merges two parts that are already sorted. It creates a
            # new list, so a list that is being read does not change.
            self._sorted = sorted(kept + sorted(self._new))
            self._new.clear()
            self._gone.clear()
        return self._sorted


def new_anomalies(document: OrderDocument, before: OrderState | None) -> set[str]:
    """Return the anomalies of an order's document that the order did not have before."""
    if not document.anomalies:
        return set()
    return set(document.anomalies) - (before.anomalies if before else set())


def changes_of(now: Mapping[str, OrderState], before: Mapping[str, OrderState]) -> Changed:
    """Return the changes to the lists, given the states of the changed orders before and now."""
    changes = Changed([], [])
    for order_id, order in now.items():
        was, is_now = _anomalous(before.get(order_id)), _anomalous(order)
        if was != is_now:
            changes.before.extend(was)
            changes.now.extend(is_now)
    return changes


def key_of(last_event: int, order_id: str) -> bytes:
    """Return an order's sort key: the time of its latest event, in Unix seconds, then its id."""
    return last_event.to_bytes(_TIME_BYTES) + order_id.encode()


def read_key(key: bytes) -> tuple[int, str]:
    """Return the time of the latest event, and the order's id, from a key."""
    return int.from_bytes(key[:_TIME_BYTES]), key[_TIME_BYTES:].decode()


def _anomalous(order: OrderState | None) -> tuple[Anomalous, ...]:
    """Return the order's list entry, or nothing if the order has no anomaly."""
    names = order.anomalies if order else set()
    if order is None or not names:
        return ()
    key = key_of(order.last_event, order.order_id)
    return (Anomalous(key, frozenset({ANY_ANOMALY, *names})),)
