"""The wire format of every topic and table.

In: the ledger's values. Out: bytes, the same for equal values; and back. Topics that others read
(``ledger.orders``, ``ledger.entries``) are JSON: docs/events says what may change in them. What
only the workers read is MessagePack, fields by position: within a version of the ledger a field may
be added at the end with a default, and never taken away or moved.
"""

from typing import Final, Generic, TypeVar

import msgspec

from ledger.deduplication import Progress, Seen
from ledger.events import Event
from ledger.journal import Entry
from ledger.orders import Order, OrderDocument
from ledger.payments import Payment, PlacedPayment, Snapshot

T = TypeVar("T")

# What ``Format.decode`` raises for bytes that ``Format.encode`` did not write.
UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Format(Generic[T]):
    """How the values of one topic or table are written: ``encode`` and ``decode`` are inverse."""

    __slots__ = ("decode", "encode")

    def __init__(
        self,
        encoder: msgspec.json.Encoder | msgspec.msgpack.Encoder,
        decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T],
    ) -> None:
        self.encode = encoder.encode
        self.decode = decoder.decode


def _msgpack(kind: type[T]) -> Format[T]:
    # Sorted keys: the same facts, met in another order, are the same bytes.
    return Format(msgspec.msgpack.Encoder(order="deterministic"), msgspec.msgpack.Decoder(kind))


def _json(kind: type[T]) -> Format[T]:
    return Format(msgspec.json.Encoder(), msgspec.json.Decoder(kind))


# Topics.
EVENTS: Final = _msgpack(Event)
SNAPSHOTS: Final = _msgpack(Snapshot)
ENTRIES: Final = _json(Entry)
ORDER_DOCUMENTS: Final = _json(OrderDocument)
PLACED_PAYMENTS: Final = _json(PlacedPayment)

# Tables, and so their changelogs.
SEEN: Final = _msgpack(Seen)
PROGRESS: Final = _msgpack(Progress)
PAYMENTS: Final = _msgpack(Payment)
ORDERS: Final = _msgpack(Order)
