"""Rejections: the reasons why data is kept but does not count.

A decoder turns bad data into a ``Rejection``, which goes to ``plexy.rejected`` together with the
bytes. An exception is a bug in the ledger.
"""

from enum import StrEnum

import msgspec


class Reason(StrEnum):
    """Why a record does not count. The names are stable: people and programs rely on them."""

    MALFORMED_JSON = "malformed_json"
    INVALID_ENVELOPE = "invalid_envelope"
    CONTROL_CHARACTERS = "control_characters"
    KEY_MISMATCH = "key_mismatch"
    EVENT_ID_REUSED = "event_id_reused"
    DATA_UNREADABLE = "data_unreadable"
    CREATED_UNREADABLE = "created_unreadable"
    ID_MISSING = "id_missing"
    ID_INVALID = "id_invalid"
    REFERENCE_TOO_LONG = "reference_too_long"
    AMOUNT_MISSING = "amount_missing"
    AMOUNT_NOT_INTEGER = "amount_not_integer"
    AMOUNT_NEGATIVE = "amount_negative"
    AMOUNT_TOO_LARGE = "amount_too_large"
    AMOUNT_TOO_PRECISE = "amount_too_precise"
    AMOUNT_NOT_DECIMAL = "amount_not_decimal"
    CURRENCY_MISSING = "currency_missing"
    CURRENCY_UNKNOWN = "currency_unknown"
    CURRENCY_CONFLICTS = "currency_conflicts"
    BATCH_TOO_LARGE = "batch_too_large"
    BATCH_UNREADABLE = "batch_unreadable"
    UNREADABLE = "unreadable"
    SIGNATURE_REFUSED = "signature_refused"
    TOO_MANY_EVENTS = "too_many_events"


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """The rejection of a record; ``detail`` is a sentence for people.

    ``field`` is the path of the wrong field, such as ``data.amount``, or empty.
    """

    reason: Reason
    detail: str
    field: str = ""
