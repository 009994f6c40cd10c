"""Reads the records that one hop of the ledger writes for the next.

In: records of ``ledger.events`` or ``ledger.payments``. Out: the values of those that a hop may
have written, and a ``Rejection`` for each of the others. A stranger with the right to write to
these topics can write anything; whatever it is, the records around it are folded.
"""

from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

import msgspec

from ledger.deduplication import Rejected
from ledger.envelope import MAX_ID_BYTES
from ledger.events import FOLDED_TYPES, Event
from ledger.payments import Snapshot
from ledger.rejections import Reason, Rejection
from ledger.trust import Record
from ledger.unread import unread_or
from ledger.wire import EVENTS, SNAPSHOTS, UNDECODABLE

# Six texts of at most 512 bytes, and five numbers.
MAX_EVENT_BYTES: Final = 4096

R = TypeVar("R", bound=Record)
T = TypeVar("T")


class Readings(msgspec.Struct, Generic[R, T]):
    """The records that can be read, with the value of each, and those that can't."""

    records: list[R]
    values: list[T]
    rejected: list[Rejected]

    @property
    def keys(self) -> set[bytes]:
        """The keys of the records that can be read, each once."""
        return {record.key for record in self.records if record.key is not None}


def read_events(records: Iterable[R]) -> Readings[R, Event]:
    """Read records of ``ledger.events``."""
    return _read(records, _event)


def read_snapshots(records: Iterable[R]) -> Readings[R, Snapshot]:
    """Read records of ``ledger.payments``."""
    return _read(records, _snapshot)


def _read(records: Iterable[R], decode: Callable[[Record], T | Rejection]) -> Readings[R, T]:
    readings: Readings[R, T] = Readings([], [], [])
    for record in records:
        value = decode(record)
        if isinstance(value, Rejection):
            rejection = unread_or(value, record.value)
            readings.rejected.append(Rejected(record, None, rejection))
        else:
            readings.records.append(record)
            readings.values.append(value)
    return readings


def _event(record: Record) -> Event | Rejection:
    value = record.value or b""
    if len(value) > MAX_EVENT_BYTES:
        return _unreadable(f"an event has at most {MAX_EVENT_BYTES} bytes, got {len(value)}")
    try:
        event = EVENTS.decode(value)
    except UNDECODABLE as error:
        return _unreadable(f"the value is not an event: {error}")
    if event.type not in FOLDED_TYPES:
        return _unreadable(f"events of type {event.type!r:.80} are not folded")
    return event if event.payment_id.encode() == record.key else _misplaced("payment's")


def _snapshot(record: Record) -> Snapshot | Rejection:
    try:
        snapshot = SNAPSHOTS.decode(record.value or b"")
    except UNDECODABLE as error:
        return _unreadable(f"the value is not a payment's snapshot: {error}")
    order_id = snapshot.order_id.encode()
    if max(len(order_id), len(snapshot.payment_id.encode())) > MAX_ID_BYTES:
        return _unreadable(f"an id has at most {MAX_ID_BYTES} bytes")
    if snapshot.payment is not None and not snapshot.payment.events:
        return _unreadable("the payment rests on no event")
    return snapshot if order_id == record.key else _misplaced("order's")


def _unreadable(detail: str) -> Rejection:
    return Rejection(reason=Reason.UNREADABLE, detail=detail)


def _misplaced(whose: str) -> Rejection:
    detail = f"the record's key is not the {whose} id"
    return Rejection(reason=Reason.KEY_MISMATCH, detail=detail)
