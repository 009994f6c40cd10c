"""The records of ``plexy.rejected``: rejections with the rejected bytes, and marks that close them.

Input: a body, its rejection, and the place from which the body was read. Output: key, value and
headers of the record. Nothing is ever removed from ``plexy.rejected``: if the bytes of a rejection
are put back, or a corrected delivery of the event counts, a further record (a mark) says so. If a
body is too large to be kept twice, the record has the size and the SHA-256 of the body instead. The
bytes are then at the place that the rejection names.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Final

import msgspec
from msgspec import UNSET

from ledger.deduplication import Corrected
from ledger.events import Event
from ledger.kept_facts import MOST_FACT_BYTES
from ledger.published import Digits, NotEmpty, Sha256, meaning
from ledger.rejections import Reason, Rejection

# A delivery that ingress refused has no place in a topic. Its rejection names this text as the
# source topic.
HTTP: Final = "http"

# A topic takes records of up to 10 MiB. A tenth of that is enough for every body that ingress
# accepts by default, and leaves room for the key and the headers of any rejection.
MAX_KEPT_BYTES: Final = 1024 * 1024
# A detail may quote the rejected bytes, so it is cut to keep the header short.
_MAX_DETAIL_CHARS: Final = 1000

RejectedRecord = tuple[bytes, bytes, Sequence[tuple[str, bytes]]]
_Absent = msgspec.UnsetType


class RejectionHeaders(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """The headers next to the bytes of a rejection; every value is UTF-8 text."""

    # Later versions may add reasons, so programs downstream must accept unknown reasons.
    reason: Annotated[NotEmpty, meaning("why it is not counted", examples=[str(r) for r in Reason])]
    detail: Annotated[str, meaning("a sentence for people; it names the field")]
    source_topic: Annotated[
        NotEmpty, meaning("the topic that has the record; `http` if ingress refused the delivery")
    ]
    source_partition: Annotated[Digits | _Absent, meaning("the record's partition")] = UNSET
    source_offset: Annotated[Digits | _Absent, meaning("the record's offset")] = UNSET
    body_bytes: Annotated[
        Digits | _Absent,
        meaning("the size of bytes that are too large to be kept here, where the value is empty"),
    ] = UNSET
    body_sha256: Annotated[
        Sha256 | _Absent, meaning("the SHA-256 of those bytes, in hex; the source has them")
    ] = UNSET
    plexy_signature: Annotated[str | _Absent, meaning("the delivery's signature, as it came")] = (
        UNSET
    )
    dialect: Annotated[
        str | _Absent, meaning("`pay` for a notification of the Pay API; absent for a signed event")
    ] = UNSET
    amounts: Annotated[
        str | _Absent, meaning("the unit of the notification's amounts: `minor` or `major`")
    ] = UNSET
    authenticated_by: Annotated[
        str | _Absent, meaning("`bearer`: a token, which is not kept, authenticated the sender")
    ] = UNSET
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
    """The headers of a put-back mark, which has the key and the bytes of its rejection.

    A mark of a correction has no bytes.
    """

    source_topic: Annotated[NotEmpty, meaning("as in the rejection")]
    source_partition: Annotated[Digits | _Absent, meaning("as in the rejection")] = UNSET
    source_offset: Annotated[Digits | _Absent, meaning("as in the rejection")] = UNSET
    body_bytes: Annotated[Digits | _Absent, meaning("as in the rejection")] = UNSET
    body_sha256: Annotated[Sha256 | _Absent, meaning("as in the rejection")] = UNSET
    put_back_to: Annotated[NotEmpty, meaning("the new place: topic/partition/offset")]
    put_back_at_ms: Annotated[Digits, meaning("when it was put back, in Unix milliseconds")]
    corrected: Annotated[
        NotEmpty | _Absent,
        meaning(
            "`true` if the rejection was corrected: `put-back-to` is the place of a different "
            "delivery of the event, which counts instead"
        ),
    ] = UNSET


def key_without_id(body: bytes) -> bytes:
    """Return the key for a body without a usable event id: the SHA-256 of the bytes, in hex."""
    return sha256(body).hexdigest().encode()


class Unkept(msgspec.Struct, frozen=True):
    """Bytes that a rejection describes but does not hold."""

    sha256: str
    size_bytes: int

    def describes(self, body: bytes) -> bool:
        """Return whether a body has these bytes."""
        return len(body) == self.size_bytes and sha256(body).hexdigest() == self.sha256


def rejected_record(
    body: bytes,
    rejection: Rejection,
    event_id: str | None,
    source: tuple[str, int, int] | None,
    *,
    keep_bytes: int = MAX_KEPT_BYTES,
) -> RejectedRecord:
    """Return key, value and headers; ``source`` is topic, partition and offset, or ``None``.

    The key is the event's id if it could be read, else ``key_without_id``. So a rejection that is
    written again after a crash has the same key and the same bytes. If a body has a source and is
    longer than ``keep_bytes``, the record has the body's size and digest instead. A body that has
    no source is kept whole, because no other copy of it exists.
    """
    key = event_id.encode() if event_id else key_without_id(body)
    detail = rejection.detail[:_MAX_DETAIL_CHARS]
    headers = [("reason", str(rejection.reason).encode()), ("detail", detail.encode())]
    if source is None:
        return key, body, headers
    topic, partition, offset = source
    headers += [
        ("source-topic", topic.encode()),
        ("source-partition", b"%d" % partition),
        ("source-offset", b"%d" % offset),
    ]
    if len(body) > keep_bytes:
        digest = sha256(body).hexdigest().encode()
        headers += [("body-bytes", b"%d" % len(body)), ("body-sha256", digest)]
        body = b""
    return key, body, headers


def set_aside_record(event: Event, topic: str) -> RejectedRecord:
    """Return the record about a fact for which its payment has no room.

    The value is empty: the log of record, ``topic``, has the bytes at the place in the headers.
    """
    detail = (
        f"payment {event.payment_id!r:.80} keeps its earliest facts, up to {MOST_FACT_BYTES} bytes "
        "in total, and this event is later than all kept facts"
    )
    rejection = Rejection(reason=Reason.TOO_MANY_EVENTS, detail=detail)
    source = (topic, event.partition, event.offset)
    return rejected_record(b"", rejection, event.event_id, source)


def unkept(headers: Mapping[str, str]) -> Unkept | None:
    """Return the description of the bytes that a rejection lacks; ``None`` if it has all bytes."""
    size = headers.get("body-bytes", "")
    return Unkept(headers.get("body-sha256", ""), int(size)) if is_number(size) else None


def is_number(text: str) -> bool:
    """Return whether a header, perhaps a stranger's, is a number that Kafka can hold."""
    # A signed 64-bit number has at most 19 digits.
    return text.isascii() and text.isdigit() and len(text) < 20  # noqa: PLR2004


def put_back_record(
    key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]], to: str, at_ms: int
) -> RejectedRecord:
    """Return the mark which says that a rejection was put back.

    The arguments ``key``, ``value`` and ``headers`` are those of the rejection.

    The mark has the key and the value of the rejection, and names the same source, but no reason.
    """
    kept = [(name, value) for name, value in headers if name.startswith(("source-", "body-"))]
    put_back = [("put-back-to", to.encode()), ("put-back-at-ms", b"%d" % at_ms)]
    return key, value, [*kept, *put_back]


def corrected_record(corrected: Corrected, topic: str) -> RejectedRecord:
    """Return the mark which says that a delivery was corrected; ``topic`` is the log of record."""
    partition = corrected.partition
    source = [
        ("source-topic", topic.encode()),
        ("source-partition", b"%d" % partition),
        ("source-offset", b"%d" % corrected.rejected_at),
    ]
    to = f"{topic}/{partition}/{corrected.counts_at}"
    key = corrected.event_id.encode()
    _, _, headers = put_back_record(key, b"", source, to, corrected.at_ms)
    return key, b"", [*headers, ("corrected", b"true")]
