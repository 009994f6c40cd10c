"""Read a notification of Plexy's Pay API as an event.

Input: a body such as ``{"name": "transaction.charged", "data": {…}}``, and the unit of its amounts.
Output: an envelope that ``ledger.events`` reads like the envelope of a signed event, or a
``Rejection``. Invariants: no body raises an exception, and no amount becomes a float.

A notification has no event id. Its name, its transaction's id and its ``updatedAt`` together
distinguish it from every other notification, and are the same in each redelivery. So the event id
is a digest of these three values.
"""

from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from typing import Annotated, Any, Final

import msgspec

from ledger.envelope import MAX_ID_BYTES, Envelope, decimal_text, fault_of, json_text
from ledger.json_values import MalformedJsonError, decode_json
from ledger.lifecycle import PAY, Kind
from ledger.money import WrittenAmount
from ledger.references import Fields, is_placeholder, references
from ledger.rejections import Reason, Rejection
from ledger.times import seconds_of

ORDER: Final = "merchantReference"
PARENT: Final = "parentTransactionId"
_PARENT_FIELDS: Final = Fields((PARENT,))

_CHARGED: Final = "transaction.charged"
_UPDATED: Final = "updatedAt"
_DIGEST_BYTES: Final = 16

_REFUND: Final = "refund"
# The types of a transaction that is a payment. Plexy itself names only `payment`.
_PAYMENT: Final = frozenset({"payment", "purchase", "sale"})

# A refund is a transaction of its own. If the refund fails, the payment has not failed. So these
# kinds have another meaning in a refund.
_OF_REFUND: Final = {
    Kind.FAILED: Kind.REFUND_REVERSED,
    Kind.VOIDED: Kind.REFUND_REVERSED,
    Kind.AUTHORISED: Kind.INFORMATIONAL,
    Kind.SUCCEEDED: None,
}


class PayAmounts(StrEnum):
    """The unit of the amounts, which depends on how Plexy set up the integration."""

    MINOR = "minor"
    MAJOR = "major"


class Notification(msgspec.Struct, frozen=True):
    """The fields of a notification; ``name`` is ``transaction.`` and the transaction's status.

    Source: Plexy's Pay API (``name``, ``merchantId``, ``data``).
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES)]
    data: dict[str, Any]


class PayEnvelope(Envelope, frozen=True, gc=False):
    """The envelope of a notification; ``created`` is ``updatedAt``, in UTC if it has no zone."""


_CANONICAL: Final = msgspec.json.Encoder(order="sorted")


def decode_notification(body: bytes, amounts: PayAmounts) -> PayEnvelope | Rejection:
    """Decode a notification's body; never raise.

    >>> body = b'{"name": "transaction.charged", "data": {"id": "txn_1", "updatedAt": 1}}'
    >>> decode_notification(body, PayAmounts.MINOR).data["id"]
    'txn_1'
    """
    try:
        value = decode_json(json_text(body), exact=True)
    except MalformedJsonError as error:
        return Rejection(reason=Reason.MALFORMED_JSON, detail=str(error))
    if not isinstance(value, dict):
        detail = f"expected an object, got {type(value).__name__}"
        return Rejection(reason=Reason.INVALID_ENVELOPE, detail=detail)
    name, given = value.get("name"), value.get("data")
    data = {key: _bare(each) for key, each in given.items()} if isinstance(given, dict) else {}
    transaction = decimal_text(data.get("id"))
    fault = fault_of("name", name) or fault_of("data.id", transaction)
    return fault or _envelope(str(name), str(transaction), data, amounts)


def kind_of(envelope: PayEnvelope) -> Kind | None:
    """Return what a notification states; ``None`` for an unknown name or an unknown type.

    A transaction that has a parent but no type may be a payment or a refund, so its type counts as
    unknown.
    """
    kind, stated = PAY.kind_of(envelope.type, envelope.data), envelope.data.get("type")
    if kind is None or kind not in _OF_REFUND:
        return kind
    word = str(stated).strip().lower()
    if word in _PAYMENT:
        return kind
    if word == _REFUND:
        return _OF_REFUND[kind]
    is_alone = not any(text for _, text in references(envelope.data, _PARENT_FIELDS))
    return kind if is_placeholder(word) and is_alone else None


def _envelope(
    name: str, transaction: str, data: dict[str, Any], amounts: PayAmounts
) -> PayEnvelope:
    updated = data.get(_UPDATED)
    content = _CANONICAL.encode((name, transaction, updated))
    return PayEnvelope(
        id=f"pay:{blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()}",
        type=name,
        created=_in_utc(updated),
        data=data | {"id": transaction, "amount": _amount(name, data, amounts)},
    )


def _in_utc(updated: Any) -> Any:
    """Return ``updatedAt``; if it has no zone, add UTC, as Plexy's documentation says."""
    if isinstance(updated, msgspec.Raw):
        return decode_json(bytes(updated))
    # Nearly every time ends with a zone.
    if not isinstance(updated, str) or updated.endswith("Z") or seconds_of(updated) is not None:
        return updated
    in_utc = f"{updated}Z"
    return updated if seconds_of(in_utc) is None else in_utc


def _bare(value: Any) -> Any:
    """Return the text in an object such as ``{"Value": "txn_1"}``, or another value unchanged."""
    return value["Value"] if isinstance(value, dict) and value.keys() == {"Value"} else value


def _amount(name: str, data: Mapping[str, Any], amounts: PayAmounts) -> Any:
    """Return the captured amount of a charged transaction if stated, else ``amount``."""
    amount = data.get("processedAmount") if name == _CHARGED else None
    return _written(data.get("amount") if amount is None else amount, amounts)


def _written(amount: Any, amounts: PayAmounts) -> Any:
    if isinstance(amount, dict):
        return amount | {"value": _written(amount.get("value"), amounts)}
    if isinstance(amount, msgspec.Raw):
        amount = bytes(amount).decode()
    if type(amount) not in {int, str}:
        return amount
    return WrittenAmount(str(amount), amounts is PayAmounts.MAJOR)
