"""Dialects: how the body of a record is read, and how its sender was authenticated.

Input: a record of the log of record. Output: the record's envelope, or a rejection. Plexy sends two
dialects: signed events, and the notifications of its Pay API, which come with a bearer token.
Ingress writes the dialect of a notification into the record's first headers. A record that has no
such headers is a signed event. Invariant: every program reads the same record in the same way.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ledger.envelope import Envelope, decode_envelope
from ledger.pay import PayAmounts, decode_notification
from ledger.records import SignedRecord
from ledger.rejections import Reason, Rejection

# A worker reads the headers of a record only if the first header has this name.
DIALECT: Final = "dialect"

Headers = Sequence[tuple[str, bytes | None]]


def pay_headers(amounts: PayAmounts) -> tuple[tuple[str, bytes], ...]:
    """Return the first headers of a notification's record; a bearer token authenticated it."""
    return (
        (DIALECT, b"pay"),
        ("amounts", amounts.encode()),
        ("authenticated-by", b"bearer"),
    )


_AMOUNTS: Final[Mapping[tuple[Any, ...], PayAmounts]] = {
    pay_headers(amounts): amounts for amounts in PayAmounts
}
_HEADERS: Final = len(next(iter(_AMOUNTS)))
_UNKNOWN: Final = Rejection(
    reason=Reason.INVALID_ENVELOPE,
    detail="the record's first headers name no known dialect: expected dialect: pay, amounts: "
    "minor or major, and authenticated-by: bearer",
)


def is_bearer(headers: Headers) -> bool:
    """Return whether a record says that a bearer token authenticated its sender."""
    return tuple(headers[:_HEADERS]) in _AMOUNTS


def dialect_headers_of(headers: Headers) -> tuple[tuple[str, bytes], ...]:
    """Return the headers that state a record's dialect; a signed event has none of them."""
    amounts = _AMOUNTS.get(tuple(headers[:_HEADERS]))
    return () if amounts is None else pay_headers(amounts)


def read_envelope(record: SignedRecord) -> Envelope | Rejection:
    """Read a record's body in the record's dialect; never raise."""
    headers = record.headers
    if not headers or headers[0][0] != DIALECT:
        return decode_envelope(record.value or b"")
    amounts = _AMOUNTS.get(tuple(headers[:_HEADERS]))
    return _UNKNOWN if amounts is None else decode_notification(record.value or b"", amounts)
