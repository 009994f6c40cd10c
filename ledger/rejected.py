"""The records of ``plexy.rejected``: bytes as they came, and why; later, that they were put back.

In: a body, its rejection, and where it was read from. Out: key, value and headers of the record.
Nothing is ever taken out of ``plexy.rejected``: what is put back is said by a record more.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Final

import msgspec
from msgspec import UNSET

from ledger.published import Digits, NotEmpty, meaning
from ledger.rejections import Reason, Rejection

# The source of a delivery that ingress refused: it has no place in the log.
HTTP: Final = "http"

RejectedRecord = tuple[bytes, bytes, Sequence[tuple[str, bytes]]]
_Absent = msgspec.UnsetType


class RejectionHeaders(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What stands beside the bytes of a rejection; every value is UTF-8 text."""

    # No closed list: a program downstream must expect further reasons.
    reason: Annotated[NotEmpty, meaning("why it is not counted", examples=[str(r) for r in Reason])]
    detail: Annotated[str, meaning("a sentence for people; it names the field")]
    source_topic: Annotated[
        NotEmpty, meaning("the topic that has the record; `http` if ingress refused the delivery")
    ]
    source_partition: Annotated[Digits | _Absent, meaning("the record's partition")] = UNSET
    source_offset: Annotated[Digits | _Absent, meaning("the record's offset")] = UNSET
    plexy_signature: Annotated[str | _Absent, meaning("the delivery's signature, as it came")] = (
        UNSET
    )
    received_at_ms: Annotated[
        Digits | _Absent, meaning("when the delivery arrived, in Unix milliseconds")
    ] = UNSET
    content_type: Annotated[str | _Absent, meaning("the delivery's content type, as it came")] = (
        UNSET
    )
    traceparent: Annotated[
        str | _Absent, meaning("the delivery's trace, if it was traced (W3C Trace Context)")
    ] = UNSET


class PutBackHeaders(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What says of an earlier rejection, of the same key and bytes, that it was put back."""

    source_topic: Annotated[NotEmpty, meaning("as in the rejection")]
    source_partition: Annotated[Digits | _Absent, meaning("as in the rejection")] = UNSET
    source_offset: Annotated[Digits | _Absent, meaning("as in the rejection")] = UNSET
    put_back_to: Annotated[NotEmpty, meaning("where it went: topic/partition/offset")]
    put_back_at_ms: Annotated[Digits, meaning("when it went there, in Unix milliseconds")]


def key_without_id(body: bytes) -> bytes:
    """Return the key of a body that has no usable event id: the SHA-256 of the bytes, in hex."""
    return sha256(body).hexdigest().encode()


def rejected_record(
    body: bytes,
    rejection: Rejection,
    event_id: str | None,
    source: tuple[str, int, int] | None,
) -> RejectedRecord:
    """Return key, value and headers; ``source`` is topic, partition and offset, where there is one.

    The key is the event's id where one could be read, else ``key_without_id``: the same rejection,
    written again after a crash, has the same key and the same bytes.
    """
    key = event_id.encode() if event_id else key_without_id(body)
    headers = [("reason", str(rejection.reason).encode()), ("detail", rejection.detail.encode())]
    if source is not None:
        topic, partition, offset = source
        headers += [
            ("source-topic", topic.encode()),
            ("source-partition", b"%d" % partition),
            ("source-offset", b"%d" % offset),
        ]
    return key, body, headers


def put_back_record(
    key: bytes, body: bytes, headers: Sequence[tuple[str, bytes]], to: str, at_ms: int
) -> RejectedRecord:
    """Return the record that says of a rejection, of which the first three are, where it went.

    It has the same key and bytes, and is no rejection: it has the source, and no reason.
    """
    source = [(name, value) for name, value in headers if name.startswith("source-")]
    put_back = [("put-back-to", to.encode()), ("put-back-at-ms", b"%d" % at_ms)]
    return key, body, [*source, *put_back]
