"""The orders of a partition in which something does not fit together, by anomaly.

In: orders, as the table holds them and as chunks change them. Out: how many have each anomaly, and
which, the one with the latest event first. Never: the orders themselves: an order costs one short
key, and a place in the list of each anomaly that it has.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from ledger.orders import Order, anomalies_of, last_event_of
from ledger.wire import ORDERS

ANY_ANOMALY: Final = "any"
"""Under it stand the orders that have any anomaly, each once."""

_TIME_BYTES: Final = 8


class Anomalous(NamedTuple):
    """An order's key, and the names under which it stands."""

    key: bytes
    names: frozenset[str]


class Changed(NamedTuple):
    """What a chunk changed: how orders stood before, and how they stand now."""

    before: list[Anomalous]
    now: list[Anomalous]


class AnomalousOrders:
    """The keys of orders with anomalies, by anomaly, each list sorted when it is first needed."""

    def __init__(self) -> None:
        self._keys: dict[str, list[bytes]] = {}
        self._is_sorted = True

    def take(self, value: bytes) -> None:
        """Take in an order as it is stored."""
        for key, names in _anomalous(ORDERS.decode(value)):
            for name in names:
                self._keys.setdefault(name, []).append(key)
            self._is_sorted = False

    def change(self, change: Changed) -> None:
        """Take in what a chunk changed; ``ValueError`` for a key that is not there."""
        for key, names in change.before:
            for name in names:
                keys = self._sorted(name)
                at = bisect_left(keys, key)
                if keys[at : at + 1] != [key]:
                    raise ValueError(f"{key!r} is not among the orders with {name}")
                del keys[at]
        for key, names in change.now:
            for name in names:
                insort(self._sorted(name), key)

    def counts(self) -> dict[str, int]:
        """Return how many orders have each anomaly, and under ``any`` each once."""
        return {name: len(keys) for name, keys in self._keys.items() if keys}

    def latest(self, name: str, below: bytes | None) -> Iterator[bytes]:
        """Yield the keys of orders with an anomaly, the latest first, from below a key on."""
        keys = self._sorted(name)
        end = len(keys) if below is None else bisect_left(keys, below)
        return (keys[at] for at in range(end - 1, -1, -1))

    def _sorted(self, name: str) -> list[bytes]:
        if not self._is_sorted:
            for keys in self._keys.values():
                keys.sort()
            self._is_sorted = True
        return self._keys.setdefault(name, [])


def changes_of(now: Mapping[str, Order], before: Mapping[str, Order]) -> Changed:
    """Return what changes in the lists when orders change; ``before`` are those that were there."""
    changes = Changed([], [])
    for order_id, order in now.items():
        was, is_now = _anomalous(before.get(order_id)), _anomalous(order)
        if was != is_now:
            changes.before.extend(was)
            changes.now.extend(is_now)
    return changes


def key_of(last_event: int, order_id: str) -> bytes:
    """Return what orders are sorted by: the time of the latest event, in Unix seconds, then id."""
    return last_event.to_bytes(_TIME_BYTES) + order_id.encode()


def read_key(key: bytes) -> tuple[int, str]:
    """Return the time of the latest event, and the id."""
    return int.from_bytes(key[:_TIME_BYTES]), key[_TIME_BYTES:].decode()


def _anomalous(order: Order | None) -> tuple[Anomalous, ...]:
    """Return the order's entry, if it has an anomaly."""
    names = anomalies_of(order)
    if order is None or not names:
        return ()
    key = key_of(last_event_of(order), order.order_id)
    return (Anomalous(key, frozenset({ANY_ANOMALY, *names})),)
