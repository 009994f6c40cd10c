"""Builds the record that stores a delivery.

Input: a request's headers and body. Output: the record for the log of record, or for
``plexy.rejected``. Invariant: each record keeps the body byte for byte, as Plexy signed it.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, NoReturn, Self

from ledger.envelope import Envelope, has_control_characters, is_too_long, json_text
from ledger.rejected import HTTP, rejected_record
from ledger.rejections import Rejection
from ledger.topics import TopicNames

_LENGTH_DIGITS: Final = 20
_JSON_TYPE: Final = re.compile(rb"|application/(?:[a-z0-9!#$&^_.-]+\+)?json", re.IGNORECASE)
# JSON may escape half of a surrogate pair, which is no character, and which UTF-8 can't encode.
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class NewRecord(NamedTuple):
    """One record to append; ``timestamp_ms`` is the time at which its delivery arrived."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    timestamp_ms: int


class DeliveryHead(NamedTuple):
    """The relevant parts of a request's head, and the time of its arrival in Unix milliseconds.

    ``content_length`` is ``None`` if the body arrives in chunks. ``trace`` has the header that
    names the request's trace, if there is one. ``dialect`` has the record's first headers if the
    delivery is a notification of the Pay API.
    """

    signature: bytes
    content_type: bytes
    content_length: int | None
    received_at_ms: int
    trace: Sequence[tuple[str, bytes]] = ()
    dialect: Sequence[tuple[str, bytes]] = ()
    content_encoding: bytes = b""

    @classmethod
    def of(
        cls,
        headers: Sequence[tuple[bytes, bytes]],
        received_at_ms: int,
        dialect: Sequence[tuple[str, bytes]] = (),
    ) -> Self:
        """Read a request's headers; join repeated headers with commas (RFC 9110, 5.3).

        A header that is repeated with the same value has one meaning, so it is read only once.
        """
        signatures: list[bytes] = []
        content_types: list[bytes] = []
        encodings: list[bytes] = []
        content_length = None
        for name, value in headers:
            if name == b"plexy-signature":
                if value not in signatures:
                    signatures.append(value)
            elif name == b"content-type":
                if value not in content_types:
                    content_types.append(value)
            elif name == b"content-encoding":
                encodings.append(value)
            elif name == b"content-length" and value.isdigit():
                # The parser refuses lengths over 64 bits, but accepts any number of leading zeros.
                # Only the last digits are read, because `int` refuses more than 4,300 digits.
                content_length = int(value[-_LENGTH_DIGITS:])
        signature, content_type = b",".join(signatures), b",".join(content_types)
        encoding = b",".join(encodings)
        return cls(signature, content_type, content_length, received_at_ms, (), dialect, encoding)

    @property
    def is_json(self) -> bool:
        """Whether the body's type is JSON or not declared; the type's parameters are ignored."""
        if self.content_type == b"application/json":
            return True
        return _JSON_TYPE.fullmatch(self.content_type.partition(b";")[0].strip()) is not None

    @property
    def is_encoded(self) -> bool:
        """Whether the body is compressed, so that its bytes are not the JSON that Plexy signed."""
        return self.content_encoding.strip().lower() not in {b"", b"identity"}

    def headers(self) -> list[tuple[str, bytes]]:
        """Return the record's headers; they suffice to judge the delivery again later."""
        return [
            *(self.dialect or (("plexy-signature", self.signature),)),
            ("received-at-ms", b"%d" % self.received_at_ms),
            ("content-type", self.content_type),
            *self.trace,
        ]


def webhook_record(
    names: TopicNames, delivery: DeliveryHead, body: bytes, envelope: Envelope
) -> NewRecord:
    """Return the record for the log of record."""
    key = envelope.id.encode()
    return NewRecord(names.webhooks, key, body, delivery.headers(), delivery.received_at_ms)


def rejected_delivery_record(
    names: TopicNames,
    delivery: DeliveryHead,
    body: bytes,
    rejection: Rejection,
    event_id: str | None,
) -> NewRecord:
    """Return the record for ``plexy.rejected``, for a delivery that has no place in the log."""
    key, value, headers = rejected_record(body, rejection, event_id, None)
    # The delivery's headers come first, as in the log, because the first headers name the dialect.
    headers = [*delivery.headers(), *headers, ("source-topic", HTTP.encode())]
    return NewRecord(names.rejected, key, value, headers, delivery.received_at_ms)


def json_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a body, or ``None`` if the body is anything else; never raise.

    The object may contain half of a surrogate pair, or deep nesting. An event may contain neither
    of them. Integers are returned as text.

    >>> json_object(b'{"id": 1}'), json_object(b'[]'), json_object(b'1700000000.{"id": 1}')
    ({'id': '1'}, None, None)
    """
    try:
        value = json.loads(json_text(body).decode(), parse_int=str, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def readable_event_id(fields: dict[str, Any]) -> str | None:
    """Return the id of a JSON object that is not a valid envelope, if the id is usable.

    >>> readable_event_id({"id": "evt_1", "type": 7})
    'evt_1'
    """
    event_id = fields.get("id")
    if not isinstance(event_id, str) or _SURROGATE.search(event_id):
        return None
    if is_too_long(event_id) or has_control_characters(event_id):
        return None
    return event_id or None
