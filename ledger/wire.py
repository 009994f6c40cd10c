"""The wire format of every topic and table.

Equal values are encoded to equal bytes, and decoding returns the encoded value. The public topics
(``ledger.orders``, ``ledger.entries``) hold JSON; docs/events says what may change in them. The
topics and tables that only the workers read hold MessagePack, in which the position of a field
identifies the field. So within a version of the ledger, a new field must come last and have a
default.
"""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec

from ledger.deduplication import Progress, Seen
from ledger.events import Event
from ledger.journal import Entry
from ledger.large_orders import LargeOrder, OrderState
from ledger.notes import Note
from ledger.orders import Order, OrderDocument
from ledger.payment_documents import PlacedPayment
from ledger.payments import Payment, Snapshot

T = TypeVar("T")

_FIRST_ARRAY: Final = b"\x90"

# The exceptions that ``Format.decode`` raises for bytes that ``Format.encode`` did not write.
UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decoded(decode: Callable[[bytes], T], value: bytes | None) -> T | None:
    """Return a decoded value; ``None`` for no value, and for bytes that can't be decoded."""
    try:
        return None if value is None else decode(value)
    except UNDECODABLE:
        return None


class Format(Generic[T]):
    """The format of the values of one topic or table; ``decode`` is the inverse of ``encode``."""

    __slots__ = ("decode", "encode")

    def __init__(self, encode: Callable[[T], bytes], decode: Callable[[bytes], T]) -> None:
        self.encode = encode
        self.decode = decode


def _msgpack(kind: type[T]) -> Format[T]:
    # Keys are sorted, so that the same facts give the same bytes whatever their order of arrival.
    encoder = msgspec.msgpack.Encoder(order="deterministic")
    return Format(encoder.encode, msgspec.msgpack.Decoder(kind).decode)


def _json(kind: type[T]) -> Format[T]:
    return Format(msgspec.json.Encoder().encode, msgspec.json.Decoder(kind).decode)


def _event_format() -> Format[Event | Note]:
    event, note = _msgpack(Event), _msgpack(Note)
    decode_event, decode_note = event.decode, note.decode

    def decode(value: bytes) -> Event | Note:
        # In MessagePack, an event is an array. A note is a map with few fields, whose first byte is
        # lower than the first byte of any array.
        return decode_event(value) if value[:1] >= _FIRST_ARRAY else decode_note(value)

    # The encoder of events also encodes notes, because it takes any value.
    return Format(event.encode, decode)  # type: ignore[arg-type]


# Topics.
EVENTS: Final = _event_format()
SNAPSHOTS: Final = _msgpack(Snapshot)
ENTRIES: Final = _json(Entry)
ORDER_DOCUMENTS: Final = _json(OrderDocument)
PLACED_PAYMENTS: Final = _json(PlacedPayment)

# Tables and their changelogs.
SEEN: Final = _msgpack(Seen)
PROGRESS: Final = _msgpack(Progress)
PAYMENTS: Final = _msgpack(Payment)


def _order_format() -> Format[OrderState]:
    # Large orders are JSON, because their sums may exceed 64 bits, the longest integers of
    # MessagePack.
    small, large = _msgpack(Order), _json(LargeOrder)

    def encode(order: OrderState) -> bytes:
        return small.encode(order) if isinstance(order, Order) else large.encode(order)

    def decode(row: bytes) -> OrderState:
        # A JSON object starts with a brace; a small order's MessagePack array never does.
        return large.decode(row) if row[:1] == b"{" else small.decode(row)

    return Format(encode, decode)


ORDERS: Final = _order_format()
