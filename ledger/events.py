"""Read a Plexy event in the ledger's terms.

Input: an ``Envelope`` and its place in the log. Output: an ``Event`` to fold, ``Unfolded`` for a
type that the ledger only keeps, or a ``Rejection`` for a known type with unusable data. Invariant:
no envelope raises an exception.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from ledger.envelope import MAX_ID_BYTES, Envelope, has_control_characters, is_too_long
from ledger.money import Money, MoneyError
from ledger.rejections import Reason, Rejection

PAYMENT_SUCCEEDED: Final = "payment.succeeded"
PAYMENT_FAILED: Final = "payment.failed"
REFUND_SUCCEEDED: Final = "refund.succeeded"
FOLDED_TYPES: Final = frozenset({PAYMENT_SUCCEEDED, PAYMENT_FAILED, REFUND_SUCCEEDED})


class FieldNames(msgspec.Struct, frozen=True):
    """The fields in which references are looked up; the first match counts.

    ``order`` is looked up in ``data``, then in ``data.metadata``: Plexy's APIs have several names
    for a merchant's order number. ``payment`` lists the names under which a refund may name its
    payment.
    """

    order: tuple[str, ...] = ("merchantReference", "orderReference", "order_id", "orderId", "order")
    payment: tuple[str, ...] = ("payment_id", "paymentId", "payment", "originalReference")


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One event that counts: a fact about a payment.

    ``created`` is in Unix seconds; ``partition`` and ``offset`` are its place in the log of record.
    """

    event_id: str
    type: str
    created: int
    data_id: str
    money: Money
    status: str | None
    order_reference: str | None
    payment_reference: str | None
    partition: int
    offset: int

    @property
    def payment_id(self) -> str:
        """The payment that this fact is about: its payment reference if it has one, else its id."""
        return self.payment_reference or self.data_id


class Unfolded(msgspec.Struct, frozen=True):
    """An event of a type that the ledger keeps and counts, but does not fold."""

    type: str


def decode_event(
    envelope: Envelope, partition: int, offset: int, names: FieldNames
) -> Event | Unfolded | Rejection:
    """Read the fields that a known type needs from ``data``."""
    if envelope.type not in FOLDED_TYPES:
        return Unfolded(envelope.type)
    try:
        return _read(envelope, partition, offset, names)
    except MoneyError as error:
        field = "data.currency" if error.reason.startswith("currency") else "data.amount"
        return Rejection(reason=Reason(error.reason), detail=f"{field}: {error}", field=field)
    except _UnusableError as error:
        return error.rejection


class _UnusableError(Exception):
    """Carries the rejection of a field to ``decode_event``; never leaves this module."""

    def __init__(self, reason: Reason, field: str, detail: str) -> None:
        super().__init__(detail)
        self.rejection = Rejection(reason=reason, detail=f"{field}: {detail}", field=field)


def _read(envelope: Envelope, partition: int, offset: int, names: FieldNames) -> Event:
    data = envelope.data
    is_refund = envelope.type == REFUND_SUCCEEDED
    return Event(
        event_id=envelope.id,
        type=envelope.type,
        created=envelope.created,
        data_id=_data_id(data),
        money=Money(data.get("amount"), data.get("currency")),  # type: ignore[arg-type]
        status=_status(data),
        order_reference=_order_reference(data, names.order),
        payment_reference=_reference("data", data, names.payment) if is_refund else None,
        partition=partition,
        offset=offset,
    )


def _status(data: Mapping[str, Any]) -> str | None:
    """Return the status, which no rule uses; ``None`` for a text longer than an id may be.

    The size of a fact is bounded, because each new fact rewrites all facts of its payment.
    """
    status = data.get("status")
    if not isinstance(status, str) or len(status.encode()) > MAX_ID_BYTES:
        return None
    return status


def _data_id(data: Mapping[str, Any]) -> str:
    data_id = data.get("id")
    if data_id is None or data_id == "":
        raise _UnusableError(Reason.ID_MISSING, "data.id", "the id is missing")
    if not isinstance(data_id, str):
        raise _UnusableError(
            Reason.ID_INVALID, "data.id", f"expected text, got {type(data_id).__name__}"
        )
    return _usable("data.id", data_id)


def _order_reference(data: Mapping[str, Any], names: Iterable[str]) -> str | None:
    found = _reference("data", data, names)
    metadata = data.get("metadata")
    if found is None and isinstance(metadata, dict):
        return _reference("data.metadata", metadata, names)
    return found


def _reference(path: str, holder: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Return the first field that is a text or a whole number, as text.

    Some shops send their order numbers as JSON numbers. Any other value, such as an expanded
    object, is ignored: it is not a reference, but the money still counts.
    """
    for name in names:
        value = holder.get(name)
        if type(value) is int:
            value = str(value)
        if isinstance(value, str) and value:
            return _usable(f"{path}.{name}", value)
    return None


def _usable(field: str, text: str) -> str:
    if is_too_long(text):
        detail = f"expected at most {MAX_ID_BYTES} bytes, got {len(text.encode())}"
        raise _UnusableError(Reason.REFERENCE_TOO_LONG, field, detail)
    if has_control_characters(text):
        detail = "expected an id without control characters"
        raise _UnusableError(Reason.CONTROL_CHARACTERS, field, detail)
    return text
