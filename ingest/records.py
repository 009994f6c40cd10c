"""From a delivery to the records that keep it.

In: a request's headers and body. Out: the record for the log of record, or for ``plexy.rejected``.
Never: a change to the body; the log keeps what Plexy sent and signed, byte for byte.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple, Self

import msgspec
from starlette.types import Scope

from ledger.envelope import MAX_ID_BYTES, Envelope
from ledger.rejected import HTTP, rejected_record
from ledger.rejections import Rejection
from ledger.topics import TopicNames


class Record(NamedTuple):
    """One record to append; ``timestamp_ms`` is when its delivery arrived."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    timestamp_ms: int


class Delivery(NamedTuple):
    """What a request's head says, and when it arrived, in Unix milliseconds.

    ``content_length`` is ``None`` where the body comes in chunks of unknown number; ``trace`` is
    the header that names its trace, if it has one.
    """

    signature: bytes
    content_type: bytes
    content_length: int | None
    received_at_ms: int
    trace: Sequence[tuple[str, bytes]] = ()

    @classmethod
    def of(cls, scope: Scope, received_at_ms: int) -> Self:
        """Read an ASGI request's headers; a repeated one is joined by commas (RFC 9110, 5.3)."""
        signatures: list[bytes] = []
        content_types: list[bytes] = []
        content_length = None
        for name, value in scope["headers"]:
            if name == b"plexy-signature":
                signatures.append(value)
            elif name == b"content-type":
                content_types.append(value)
            elif name == b"content-length" and value.isdigit():
                content_length = int(value)
        signature, content_type = b",".join(signatures), b",".join(content_types)
        return cls(signature, content_type, content_length, received_at_ms)

    @property
    def is_json(self) -> bool:
        """Whether the body is declared as JSON; parameters such as a charset don't matter."""
        if self.content_type == b"application/json":
            return True
        return self.content_type.partition(b";")[0].strip().lower() == b"application/json"

    def headers(self) -> list[tuple[str, bytes]]:
        """Return what is kept beside the body: the whole log can be checked again later."""
        return [
            ("plexy-signature", self.signature),
            ("received-at-ms", b"%d" % self.received_at_ms),
            ("content-type", self.content_type),
            *self.trace,
        ]


def webhook_record(
    names: TopicNames, delivery: Delivery, body: bytes, envelope: Envelope
) -> Record:
    """Return the record for the log of record."""
    key = envelope.id.encode()
    return Record(names.webhooks, key, body, delivery.headers(), delivery.received_at_ms)


def rejected_delivery_record(
    names: TopicNames, delivery: Delivery, body: bytes, rejection: Rejection, event_id: str | None
) -> Record:
    """Return the record for ``plexy.rejected``; a delivery has no place in the log to point at."""
    key, value, headers = rejected_record(body, rejection, event_id, None)
    headers = [*headers, ("source-topic", HTTP.encode()), *delivery.headers()]
    return Record(names.rejected, key, value, headers, delivery.received_at_ms)


class _Identified(msgspec.Struct):
    """A body of which nothing but the id is asked."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES)]


_IDENTIFIED = msgspec.json.Decoder(_Identified)


def readable_event_id(body: bytes) -> str | None:
    """Return the id of a body that is no valid envelope, where it has one; never raises.

    >>> readable_event_id(b'{"id": "evt_1", "created": "yesterday"}')
    'evt_1'
    """
    try:
        event_id = _IDENTIFIED.decode(body).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return event_id if len(event_id.encode()) <= MAX_ID_BYTES else None
