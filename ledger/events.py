"""Reads the envelope of a Plexy event as an ``Event``: a fact about a payment.

Input: an ``Envelope``, its place in the log, its time of arrival, and the way to read it. Output:
an ``Event`` to fold, ``Unfolded`` for an event whose type the ledger keeps but does not fold, or a
``Rejection`` for an event of a known type whose data is unusable. Invariants: no envelope causes an
exception, and a value that may have two meanings is never used.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple

import msgspec

from ledger.envelope import (
    ALWAYS_SHORT_CHARS,
    MAX_ID_BYTES,
    Envelope,
    decimal_text,
    has_control_characters,
    is_too_long,
)
from ledger.lifecycle import (
    AUTHORISED,
    CAPTURED,
    INFORMATIONAL,
    PAY,
    SEED,
    SUCCEEDED,
    Kind,
    RuleSet,
)
from ledger.money import Money, MoneyError, read_money
from ledger.pay import ORDER, PARENT, PayEnvelope, kind_of
from ledger.references import Fields, is_placeholder, metadata_references, references
from ledger.rejections import Reason, Rejection
from ledger.statuses import contradicts
from ledger.times import plausible, seconds_of

PAYMENT_SUCCEEDED: Final = "payment.succeeded"
PAYMENT_FAILED: Final = "payment.failed"
REFUND_SUCCEEDED: Final = "refund.succeeded"
FOLDED_TYPES: Final = frozenset({PAYMENT_SUCCEEDED, PAYMENT_FAILED, REFUND_SUCCEEDED})
"""The event types that are folded under the rule set ``seed``."""

# A fact of one of these kinds moves no amount of its own, so it is not rejected for an unusable
# amount.
_NEEDS_NO_AMOUNT: Final = frozenset(
    {Kind.FAILED, Kind.AUTHORISED, Kind.VOIDED, Kind.REFUND_REVERSED}
)
_OF_REFUND: Final = frozenset({Kind.REFUNDED, Kind.REFUND_REVERSED})
_CAPTURES: Final = frozenset({Kind.SUCCEEDED, Kind.CAPTURED})
# A dispute may state its amount in any of its events.
_OF_DISPUTE: Final = frozenset({Kind.DISPUTED, Kind.DISPUTE_WON, Kind.DISPUTE_LOST})

# In an event about a refund or a dispute, this field names the payment. In an event about a
# payment, it often holds the bank's id.
_TRANSACTION: Final = "transactionId"
_NOT_OF_PAYMENT: Final = re.compile("refund|dispute|chargeback")
_OWN_ID: Final = Fields(("id",))

Mark = Literal[
    "conflicting_capture",
    "conflicting_order",
    "order_reference_unreadable",
    "status_contradicts_type",
    "time_implausible",
]
"""An anomaly that a single event shows; the event's payment then has the same anomaly."""

TIME_IMPLAUSIBLE: Final[Mark] = "time_implausible"


# In an event of one of these kinds, the event's own id is its payment's id, unless the rules let
# the event name a payment.
_OF_PAYMENT: Final = frozenset({Kind.SUCCEEDED, Kind.FAILED})


class FieldNames(msgspec.Struct, frozen=True, dict=True):
    """The fields that may name an order or a payment; if several do, the first of them counts.

    The fields in ``order`` are looked up in ``data``, then in ``data.metadata``. Plexy's APIs have
    several names for a merchant's order number. ``payment`` lists the fields in which a refund may
    name its payment. With some rules, other events may also name their payment in these fields. A
    name with dots is a path. In an event about a payment, ``transactionId`` counts only if the
    event has no id.
    """

    order: tuple[str, ...] = (
        "merchantReference",
        "orderReference",
        "order_id",
        "orderId",
        "order",
        "orderDetails.orderReference",
        "orders.id",
    )
    payment: tuple[str, ...] = (
        "payment_id",
        "paymentId",
        "payment",
        "originalReference",
        "originalPspReference",
        "transactionId",
    )

    @cached_property
    def of_order(self) -> Fields:
        """The fields that may name the order."""
        return Fields(self.order)

    @cached_property
    def of_payment(self) -> Fields:
        """The fields that may name the payment."""
        return Fields(self.payment)


class Reading(msgspec.Struct, frozen=True):
    """The way to read events: the fields that hold references, and the rules for event types."""

    fields: FieldNames = FieldNames()
    rules: RuleSet = SEED


# The Pay API has one name for each reference, and each of its types has one meaning.
PAY_READING: Final = Reading(FieldNames(order=(ORDER,), payment=(PARENT,)), PAY)


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One event that counts: a fact about a payment.

    ``created``, in Unix seconds, is the time by which the event is sorted among other events: its
    own time or, if that time is implausible, its time of arrival. ``money`` is ``None`` only for a
    kind of fact that need not state an amount. ``partition`` and ``offset`` are the event's place
    in the log of record.
    """

    event_id: str
    type: str
    created: int
    data_id: str
    money: Money | None
    status: str | None
    order_reference: str | None
    payment_reference: str | None
    partition: int
    offset: int
    kind: Kind
    marks: tuple[str, ...] = ()

    @property
    def payment_id(self) -> str:
        """The id of the fact's payment: the payment reference, if any, else the fact's own id."""
        return self.payment_reference or self.data_id

    # A ``Note`` has the same property, so callers need not distinguish events from notes.
    kept_under = payment_id

    @property
    def moved(self) -> Money:
        """The money of a fact whose kind always has an amount."""
        if self.money is None:
            raise ValueError(f"event {self.event_id} of type {self.type} has no money")
        return self.money


class Unfolded(msgspec.Struct, frozen=True):
    """An event that the ledger keeps and counts, but does not fold.

    ``known`` is true if the rules list the type as informational, and false for an unknown type.
    """

    type: str
    known: bool


class Named(NamedTuple):
    """The payment and the order that a delivery names, as far as they are readable.

    ``created`` is the time by which the delivery is sorted: its own time or, if that time is
    unreadable or implausible, its time of arrival.
    """

    payment_id: str | None
    order_reference: str | None
    created: int


def decode_event(
    envelope: Envelope, partition: int, offset: int, arrived_ms: int, reading: Reading
) -> Event | Unfolded | Rejection:
    """Read the fields that a known type needs; ``arrived_ms`` is the record's timestamp."""
    # Nearly every record is a signed event, so its kind is looked up here, to save a call.
    if type(envelope) is Envelope:
        kind = reading.rules.kind_of(envelope.type, envelope.data)
    else:
        kind, reading = _kind_and_reading(envelope, reading)
    if kind is None or kind is INFORMATIONAL:
        return Unfolded(envelope.type, known=kind is not None)
    try:
        return _read(envelope, kind, (partition, offset), arrived_ms, reading)
    except MoneyError as error:
        field = "data.currency" if error.reason.startswith("currency") else "data.amount"
        return Rejection(reason=Reason(error.reason), detail=f"{field}: {error}", field=field)
    except _UnusableError as error:
        return error.rejection


def named_by(envelope: Envelope, arrived_ms: int, reading: Reading) -> Named:
    """Return the payment and the order that an uncounted delivery names, if they are readable."""
    try:
        created = _created(envelope.created, arrived_ms, [])
    except _UnusableError:
        created = max(0, arrived_ms // 1000)
    data = envelope.data
    if not isinstance(data, dict):
        return Named(None, None, created)
    kind, reading = _kind_and_reading(envelope, reading)
    order = _order_reference(data, reading.fields.of_order, [])
    try:
        # If the rules do not let events name a payment, a success or a failure has the payment's id
        # as its own id.
        is_own = kind in _OF_PAYMENT and not reading.rules.follows_payments
        payment = (
            None if is_own else _payment_reference(envelope, kind, reading.fields.of_payment, [])
        )
        return Named(payment or _data_id(data, None), order, created)
    except _UnusableError:
        return Named(None, order, created)


def _kind_and_reading(envelope: Envelope, reading: Reading) -> tuple[Kind | None, Reading]:
    """Return the kind of fact, and how its fields are read; each dialect has its own reading."""
    if type(envelope) is PayEnvelope:
        return kind_of(envelope), PAY_READING
    return reading.rules.kind_of(envelope.type, envelope.data), reading


class _UnusableError(Exception):
    """Carries the rejection of a field to ``decode_event``; never leaves this module."""

    def __init__(self, reason: Reason, field: str, detail: str) -> None:
        super().__init__(detail)
        self.rejection = Rejection(reason=reason, detail=f"{field}: {detail}", field=field)


def _read(
    envelope: Envelope, kind: Kind, place: tuple[int, int], arrived_ms: int, reading: Reading
) -> Event:
    data, rules = envelope.data, reading.rules
    if not isinstance(data, dict):
        got = f"expected an object, got {type(data).__name__}"
        raise _UnusableError(Reason.DATA_UNREADABLE, "data", got)
    marks: list[Mark] = []
    order = _order_reference(data, reading.fields.of_order, marks)
    status = _status(data)
    payment: str | None = None
    if kind in _OF_REFUND or rules.follows_payments:
        payment = _payment_reference(envelope, kind, reading.fields.of_payment, marks)
        if payment is None and reading is PAY_READING:
            # A refund that names no payment is ambiguous: its id may be the refund's or the
            # payment's.
            expected = "expected a refund to name its payment"
            raise _UnusableError(Reason.ID_MISSING, f"data.{PARENT}", expected)
    data_id = _data_id(data, payment)
    if kind is SUCCEEDED:
        if rules.captured_fields and data.get("captured") is False:
            kind = AUTHORISED
        elif payment is not None and payment != data_id:
            kind = CAPTURED
    # Nearly every status is the name of its event's kind.
    if status is not None and status != kind and contradicts(kind, status):
        marks.append("status_contradicts_type")
    return Event(
        event_id=envelope.id,
        type=envelope.type,
        created=_created(envelope.created, arrived_ms, marks),
        data_id=data_id,
        money=_money(kind, data, rules, marks),
        status=status,
        order_reference=order,
        payment_reference=payment,
        partition=place[0],
        offset=place[1],
        kind=kind,
        marks=tuple(sorted({*marks})) if marks else (),
    )


def _created(created: object, arrived_ms: int, marks: list[Mark]) -> int:
    """Return the time by which an event is sorted among other events, in Unix seconds."""
    # Nearly every time is in seconds, and plausible.
    if type(created) is int and plausible(created, arrived_ms):
        return created
    created_s = seconds_of(created)
    if created_s is None:
        got = (
            f"got {created!r:.40}" if isinstance(created, str) else f"got {type(created).__name__}"
        )
        detail = f"expected Unix seconds, or a time as ISO 8601 with a zone, {got}"
        raise _UnusableError(Reason.CREATED_UNREADABLE, "created", detail)
    if plausible(created_s, arrived_ms):
        return created_s
    marks.append(TIME_IMPLAUSIBLE)
    return max(0, arrived_ms // 1000)


def _money(kind: Kind, data: Mapping[str, Any], rules: RuleSet, marks: list[Mark]) -> Money | None:
    """Return a fact's money; ``None`` if the fact needs no amount and has no usable amount."""
    amount, currency = data.get("amount"), data.get("currency")
    fields = rules.captured_fields
    if fields and not data.keys().isdisjoint(fields) and kind in _CAPTURES:
        captured = [data[each] for each in fields if data.get(each) is not None]
        if len({read_money(each, currency) for each in captured}) > 1:
            marks.append("conflicting_capture")
        amount = captured[0] if captured else amount
    elif amount is None and kind in _OF_DISPUTE:
        return None
    try:
        return read_money(amount, currency)
    except MoneyError:
        if kind in _NEEDS_NO_AMOUNT:
            return None
        raise


def _status(data: Mapping[str, Any]) -> str | None:
    """Return the status; ``None`` if it is not a text, or is longer than an id may be.

    A status moves no money, so it may be left out. The size of a fact must be bounded, because each
    new fact rewrites all facts of its payment.
    """
    status = data.get("status")
    if not isinstance(status, str) or is_too_long(status):
        return None
    return status


def _data_id(data: Mapping[str, Any], payment: str | None) -> str:
    """Return the event's own id or, if it has none, the id of the payment that it names."""
    data_id = data.get("id")
    if not isinstance(data_id, str):
        data_id = decimal_text(data_id)
    if data_id is None or (isinstance(data_id, str) and is_placeholder(data_id)):
        if payment is not None:
            return payment
        raise _UnusableError(Reason.ID_MISSING, "data.id", "the id is missing")
    if not isinstance(data_id, str):
        raise _UnusableError(
            Reason.ID_INVALID, "data.id", f"expected text, got {type(data_id).__name__}"
        )
    return _usable("data.id", data_id)


def _order_reference(data: Mapping[str, Any], fields: Fields, marks: list[Mark]) -> str | None:
    """Return the first order that the event names; add a mark for each doubt about the order."""
    found = references(data, fields)
    if "metadata" in data:
        found += metadata_references(data["metadata"], fields)
    if not found:
        return None
    # Nearly every event names its order once, in a short text.
    if len(found) == 1 and (order := found[0][1]) and not is_too_long(order):
        return order
    orders = [text for _, text in found if text and not is_too_long(text)]
    if not orders or any(text is None or is_too_long(text) for _, text in found):
        marks.append("order_reference_unreadable")
    if len(set(orders)) > 1:
        marks.append("conflicting_order")
    return orders[0] if orders else None


def _payment_reference(
    envelope: Envelope, kind: Kind | None, fields: Fields, marks: list[Mark]
) -> str | None:
    """Return the first payment that an event names, and mark an event that names several.

    ``transactionId`` may be the refund's id at the bank, so it never counts as a second payment.
    """
    found = references(envelope.data, fields)
    if not found:
        return None
    # Nearly every event that names its payment does so in one field.
    if len(found) == 1 and (text := found[0][1]) and found[0][0] != _TRANSACTION:
        return _usable(f"data.{found[0][0]}", text)
    named = [(name, text) for name, text in found if text]
    others = [each for each in named if each[0] != _TRANSACTION]
    if len({text for _, text in others}) > 1:
        marks.append("conflicting_order")
    if len(others) < len(named) and _is_payment_with_id(envelope, kind):
        named = others
    return _usable(f"data.{named[0][0]}", named[0][1]) if named else None


def _is_payment_with_id(envelope: Envelope, kind: Kind | None) -> bool:
    """Return whether an event is about a payment and has an id, which is then the payment's id.

    If the rules state no kind of fact for the event's type, the words in the type's name decide.
    """
    if kind is None or kind is INFORMATIONAL:
        is_other = _NOT_OF_PAYMENT.search(envelope.type) is not None
    else:
        is_other = kind in _OF_REFUND or kind in _OF_DISPUTE
    return not is_other and any(text for _, text in references(envelope.data, _OWN_ID))


def _usable(field: str, text: str) -> str:
    """Return an id unchanged if a payment or a refund may have it; otherwise raise."""
    # A short, printable id has none of the faults below, and nearly every id is short and
    # printable.
    if len(text) <= ALWAYS_SHORT_CHARS and text.isprintable():
        return text
    if is_too_long(text):
        detail = f"expected at most {MAX_ID_BYTES} bytes, got {len(text.encode())}"
        raise _UnusableError(Reason.REFERENCE_TOO_LONG, field, detail)
    if has_control_characters(text):
        detail = "expected an id without control characters"
        raise _UnusableError(Reason.CONTROL_CHARACTERS, field, detail)
    return text
