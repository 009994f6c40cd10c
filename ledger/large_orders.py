"""Large orders: an order whose row would be too long is stored as a head and one row per payment.

Input: the rows of an order, and the snapshots that arrive for it. Output: the rows that change, and
the order's document. A fold reads and writes only the head and the rows of those payments whose
snapshots arrived. So the cost of a fold does not grow with the size of the order.

The table ``orders`` has these rows for an order with the id ``o`` in UTF-8. The byte 0xff is never
part of UTF-8, so the keys of two orders can't be confused:

``o``                        a large order's head, as JSON, or a small order's only row, as
                             MessagePack
``o ff 70 <payment id>``     a payment: its latest snapshot (``HeldPayment``)
``o ff 74 <time> <payment>`` an entry of the order's calendar, with an empty value: ``<time>``, in 8
                             bytes, is the time of the payment's first or last event

The head holds the counts and sums of the payments (``Tally``). A crash may leave new rows of
payments in the table while the old head still counts earlier snapshots. So each payment's row also
holds the payment's earlier snapshot, and the head and each row name an offset of
``ledger.payments``. If the row's offset is higher than the head's offset, the head counts the
earlier snapshot; otherwise the head counts the later snapshot. When the same snapshots are folded
again, the fold starts from the snapshots that the head counts.

Whether an order is stored in this form depends on its history, but its document is the same in both
forms.
"""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from heapq import merge
from typing import Final, NamedTuple, Protocol

import msgspec

from ledger.orders import (
    MOST_PAYMENT_BYTES,
    Moment,
    Order,
    OrderDocument,
    Tally,
    describe,
    summarise,
    tally_of,
)
from ledger.payment_documents import PaymentDocument
from ledger.payments import Snapshot

MOST_ROW_BYTES: Final = 256 * 1024
"""The maximum size of a small order's row; an order with a longer row becomes large."""

_SEPARATOR: Final = b"\xff"
_PAYMENT: Final = b"\xffp"
_CALENDAR: Final = b"\xfft"
_TIME_BYTES: Final = 8


class LargeOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """The head of a large order.

    ``at`` is the offset of the last snapshot that is counted. ``first`` and ``last`` are the
    order's earliest and latest event, or ``None`` while no payment is in the order, for example
    because all payments have moved to other orders. ``rows`` is empty in the table. For a check,
    ``ledger.verification.gathered_orders`` fills ``rows`` with the order's other rows.
    """

    order_id: str
    at: int
    tally: Tally
    first: Moment | None = None
    last: Moment | None = None
    rows: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def version(self) -> int:
        """The number of distinct facts behind the order, as in ``Order.version``."""
        return self.tally.events

    @property
    def last_event(self) -> int:
        """The time of the latest event of the order's payments, in Unix seconds; 0 for no event."""
        return self.last[0] if self.last else 0

    @property
    def anomalies(self) -> set[str]:
        """The names of the anomalies of the order and its payments."""
        return self.tally.anomaly_names()


OrderState = Order | LargeOrder


class HeldPayment(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A payment of a large order; ``at`` is its snapshot's offset in ``ledger.payments``.

    A head whose offset is lower than ``at`` counts the snapshot ``before`` instead, or no snapshot
    if ``before`` is ``None``.
    """

    at: int
    snapshot: Snapshot
    before: Snapshot | None = None

    def counted_at(self, offset: int) -> Snapshot | None:
        """Return the snapshot that a head with this offset counts; ``None`` if it counts none."""
        return self.snapshot if self.at <= offset else self.before


class Arrived(NamedTuple):
    """A snapshot, and its offset in ``ledger.payments``."""

    at: int
    snapshot: Snapshot


class StoredRows(Protocol):
    """The rows in a partition of the table."""

    def get(self, key: bytes) -> bytes | None:
        """Return the row under a key, if there is one."""

    def keys(self, start: bytes, end: bytes, *, backwards: bool) -> Iterator[bytes]:
        """Yield the keys from ``start`` until ``end`` (excluded), ascending or descending."""


_PAYMENT_ROW: Final = msgspec.msgpack.Decoder(HeldPayment)
_ROW_ENCODER: Final = msgspec.msgpack.Encoder(order="deterministic")


class OrderRows:
    """The rows of one large order, with unwritten changes; ``changed`` holds these changes."""

    def __init__(self, order: LargeOrder, rows: StoredRows) -> None:
        self.changed: dict[bytes, bytes | None] = {}
        self.at = order.at
        self._rows = rows
        key = order.order_id.encode()
        self._payment, self._calendar = key + _PAYMENT, key + _CALENDAR

    def held(self, payment_id: str) -> HeldPayment | None:
        """Return the row of a payment."""
        row = self._get(self._payment + payment_id.encode())
        return None if row is None else _PAYMENT_ROW.decode(row)

    def counted(self, payment_id: str) -> Snapshot | None:
        """Return the snapshot that the head counts for a payment."""
        return _counted(self.held(payment_id), self.at)

    def payment(self, payment_id: str) -> PaymentDocument | None:
        """Return a payment's document; ``None`` if the payment is not in the order."""
        counted = self.counted(payment_id)
        return counted.payment if counted else None

    def hold(self, payment: HeldPayment, instead: HeldPayment | None) -> None:
        """Write the row ``payment`` in place of the row ``instead``, and update the calendar.

        The payment's row is written before its calendar entries. So after a crash, the row shows
        which calendar entries may exist.
        """
        payment_key = self._payment + payment.snapshot.payment_id.encode()
        self.changed[payment_key] = _ROW_ENCODER.encode(payment)
        for old in (instead.snapshot, instead.before) if instead else ():
            self.changed |= dict.fromkeys(self.entries_of(old))
        self.changed |= dict.fromkeys(self.entries_of(payment.snapshot), b"")

    def clear(self) -> None:
        """Delete every row except the head."""
        for start in (self._payment, self._calendar):
            self.changed |= dict.fromkeys(self._rows.keys(start, _after(start), backwards=False))

    def first(self) -> Moment | None:
        """Return the order's earliest event."""
        return next(self._moments(), None)

    def last(self) -> Moment | None:
        """Return the order's latest event."""
        return next(self._moments(backwards=True), None)

    def payments(self) -> Iterator[PaymentDocument]:
        """Yield the payments in the order, without reading the payments that moved away."""
        for payment_id in {self.moment(key)[1] for key in self.calendar()}:
            payment = self.payment(payment_id)
            if payment is not None:
                yield payment

    def after(self, payment_id: str) -> Iterator[tuple[str, PaymentDocument | None]]:
        """Yield the payment ids that follow an id, sorted, with the payments.

        ``None`` stands for a payment that moved away.
        """
        start = self._payment + payment_id.encode() + (b"\0" if payment_id else b"")
        for key in self._keys(start, _after(self._payment)):
            found = key.removeprefix(self._payment).decode()
            yield found, self.payment(found)

    def all_held(self) -> Iterator[tuple[str, HeldPayment]]:
        """Yield the id and the row of every payment."""
        for key in self._keys(self._payment, _after(self._payment)):
            payment_id = key.removeprefix(self._payment).decode()
            held = self.held(payment_id)
            if held is not None:
                yield payment_id, held

    def calendar(self, *, backwards: bool = False) -> Iterator[bytes]:
        """Yield the keys of the calendar's entries, ascending or descending."""
        return self._keys(self._calendar, _after(self._calendar), backwards=backwards)

    def moment(self, key: bytes) -> Moment:
        """Return the time and the payment's id in the key of a calendar entry."""
        entry = key.removeprefix(self._calendar)
        return int.from_bytes(entry[:_TIME_BYTES]), entry[_TIME_BYTES:].decode()

    def entries_of(self, snapshot: Snapshot | None) -> Iterator[bytes]:
        """Yield the keys of a snapshot's calendar entries."""
        if snapshot is not None and snapshot.payment is not None:
            for time in sorted(_first_and_last(snapshot.payment)):
                yield self._calendar + time.to_bytes(_TIME_BYTES) + snapshot.payment_id.encode()

    def _moments(self, *, backwards: bool = False) -> Iterator[Moment]:
        """Yield the moments in the calendar, but only for snapshots that the head counts."""
        for key in self.calendar(backwards=backwards):
            moment = self.moment(key)
            payment = self.payment(moment[1])
            if payment is not None and moment[0] in _first_and_last(payment):
                yield moment

    def _get(self, key: bytes) -> bytes | None:
        return self.changed[key] if key in self.changed else self._rows.get(key)

    def _keys(self, start: bytes, end: bytes, *, backwards: bool = False) -> Iterator[bytes]:
        """Yield the keys of a range, with the changes applied."""
        stored = self._rows.keys(start, end, backwards=backwards)
        new = (key for key, row in self.changed.items() if row is not None and start <= key < end)
        kept = (key for key in stored if key not in self.changed)
        return merge(kept, sorted(new, reverse=backwards), reverse=backwards)


def fold_large(order: LargeOrder, arrived: Iterable[Arrived], rows: OrderRows) -> LargeOrder | None:
    """Fold snapshots into a large order; return its new head, or ``None`` if nothing changes."""
    held: dict[str, HeldPayment | None] = {}
    newest: dict[str, Arrived] = {}
    for each in arrived:
        payment_id = each.snapshot.payment_id
        if payment_id not in held:
            held[payment_id] = rows.held(payment_id)
        last = newest.get(payment_id)
        if each.snapshot.is_newer_than(
            last.snapshot if last else _counted(held[payment_id], order.at)
        ):
            newest[payment_id] = each
    if not newest:
        return None
    tally = deepcopy(order.tally)
    for payment_id, (at, snapshot) in newest.items():
        before = _counted(held[payment_id], order.at)
        if before is not None:
            tally.take(order.order_id, before)
        tally.add(order.order_id, snapshot)
        rows.hold(HeldPayment(at, snapshot, before), held[payment_id])
    rows.at = max(order.at, *(each.at for each in newest.values()))
    return _head(order.order_id, tally, rows, order)


def split(order: Order, at: int, rows: StoredRows) -> tuple[LargeOrder, OrderRows]:
    """Return the head and the rows of a small order that becomes large.

    ``at`` is the offset of the last snapshot. If an earlier attempt crashed before it wrote the
    head, the rows of that attempt are deleted.
    """
    head = LargeOrder(order.order_id, at, tally_of(order.order_id, order.payments.values()))
    order_rows = OrderRows(head, rows)
    order_rows.clear()
    for snapshot in order.payments.values():
        order_rows.hold(HeldPayment(at, snapshot), None)
    return _head(order.order_id, head.tally, order_rows, head), order_rows


def describe_large(order: LargeOrder, rows: OrderRows) -> OrderDocument | None:
    """Return the same document that ``describe`` would return for an order with these payments."""
    if order.first and order.last and order.tally.payment_bytes > MOST_PAYMENT_BYTES:
        return summarise(order.order_id, order.tally, rows.payment, order.first, order.last)
    if not order.tally.payments and not order.tally.notes:
        return None
    if not order.tally.notes:
        return describe(order_of(order.order_id, rows.payments()))
    counted = {name: held.counted_at(rows.at) for name, held in rows.all_held()}
    return describe(Order(order.order_id, {name: each for name, each in counted.items() if each}))


def is_order_key(key: bytes) -> bool:
    """Return whether a key is the key of a head or of a small order's row."""
    return _SEPARATOR not in key


def order_key_of(key: bytes) -> bytes:
    """Return the key of the head that a row belongs to."""
    return key.partition(_SEPARATOR)[0]


def order_of(order_id: str, payments: Iterable[PaymentDocument]) -> Order:
    """Return an order that has these payments."""
    return Order(
        order_id,
        {
            each.payment_id: Snapshot(order_id, each.payment_id, len(each.events), each)
            for each in payments
        },
    )


def _head(order_id: str, tally: Tally, rows: OrderRows, before: LargeOrder) -> LargeOrder:
    # After a crash, the calendar may lack entries that the interrupted chunk removed. If no valid
    # entry is left, the new head keeps the earliest and the latest event of the former head.
    first, last = rows.first() or before.first, rows.last() or before.last
    if not tally.payments:
        first = last = None
    return LargeOrder(order_id, rows.at, tally, first, last)


def _counted(held: HeldPayment | None, at: int) -> Snapshot | None:
    return held.counted_at(at) if held else None


def _first_and_last(payment: PaymentDocument) -> set[int]:
    # A payment's events are sorted by time.
    return {payment.events[0].created, payment.events[-1].created}


def _after(start: bytes) -> bytes:
    """Return the first key above all keys that start with ``start``."""
    return start[:-1] + bytes([start[-1] + 1])
