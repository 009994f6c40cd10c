"""Reads the records that one hop (one step of the fold) writes for the next hop.

Input: records of ``ledger.events`` or ``ledger.payments``. Output: the values of the records that a
hop may have written, and a ``Rejection`` for every other record. If a stranger with write access to
these topics writes other records, the ledger still folds its own records.
"""

from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

import msgspec

from ledger.deduplication import Rejected
from ledger.envelope import MAX_ID_BYTES
from ledger.events import Event
from ledger.lifecycle import INFORMATIONAL, MOVES_ITS_AMOUNT
from ledger.notes import Note
from ledger.payments import Snapshot
from ledger.records import Record
from ledger.rejections import Reason, Rejection
from ledger.unread import unread_or
from ledger.wire import EVENTS, SNAPSHOTS, UNDECODABLE

# An event or a note has six texts of at most 512 bytes, five numbers, and the names of its marks,
# so it never exceeds this size.
MAX_EVENT_BYTES: Final = 4096

R = TypeVar("R", bound=Record)
T = TypeVar("T")


class Readings(msgspec.Struct, Generic[R, T]):
    """The readable records, their values, and the rejections of the other records."""

    records: list[R]
    values: list[T]
    rejected: list[Rejected]

    @property
    def keys(self) -> set[bytes]:
        """The keys of the readable records."""
        return {record.key for record in self.records if record.key is not None}


def read_events(records: Iterable[R]) -> Readings[R, Event | Note]:
    """Read records of ``ledger.events``."""
    return _read(records, EVENTS.decode, _event_fault)


def read_snapshots(records: Iterable[R]) -> Readings[R, Snapshot]:
    """Read records of ``ledger.payments``."""
    return _read(records, SNAPSHOTS.decode, _snapshot_fault)


def _read(
    records: Iterable[R],
    decode: Callable[[bytes], T],
    fault_of: Callable[[Record, T], Rejection | None],
) -> Readings[R, T]:
    readings: Readings[R, T] = Readings([], [], [])
    keep, keep_value = readings.records.append, readings.values.append
    for record in records:
        try:
            value = decode(record.value or b"")
        except UNDECODABLE as error:
            undecodable = _unreadable(f"no worker writes such a value: {error}")
            fault: Rejection | None = unread_or(undecodable, record.value)
        else:
            fault = fault_of(record, value)
        if fault is None:
            keep(record)
            keep_value(value)
        else:
            readings.rejected.append(Rejected(record, None, fault))
    return readings


def _event_fault(record: Record, event: Event | Note) -> Rejection | None:
    if isinstance(event, Event):
        if event.kind is INFORMATIONAL:
            return _unreadable(f"events of type {event.type!r:.80} are not folded")
        if event.money is None and event.kind in MOVES_ITS_AMOUNT:
            return _unreadable(f"expected an amount in an event of the kind {event.kind}")
    size = len(record.value or b"")
    if size > MAX_EVENT_BYTES:
        return _unreadable(f"expected an event of at most {MAX_EVENT_BYTES} bytes, got {size}")
    return None if event.kept_under.encode() == record.key else _misplaced("payment's")


def _snapshot_fault(record: Record, snapshot: Snapshot) -> Rejection | None:
    # A character has at most four bytes, so ids with few characters are never too long, and their
    # size in bytes need not be computed.
    order_id, payment_id = snapshot.order_id, snapshot.payment_id
    if len(order_id) + len(payment_id) > MAX_ID_BYTES // 4:
        longest = max(len(order_id.encode()), len(payment_id.encode()))
        if longest > MAX_ID_BYTES:
            return _unreadable(f"expected ids of at most {MAX_ID_BYTES} bytes")
    if snapshot.payment is not None and not snapshot.payment.events:
        return _unreadable("the payment has no event")
    return None if order_id.encode() == record.key else _misplaced("order's")


def _unreadable(detail: str) -> Rejection:
    return Rejection(reason=Reason.UNREADABLE, detail=detail)


def _misplaced(whose: str) -> Rejection:
    detail = f"the record's key is not the {whose} id"
    return Rejection(reason=Reason.KEY_MISMATCH, detail=detail)
