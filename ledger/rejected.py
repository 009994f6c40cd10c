"""The records of ``plexy.rejected``: bytes as they came, and why; later, that they were put back.

In: a body, its rejection, and where it was read from. Out: key, value and headers of the record.
Nothing is ever taken out of ``plexy.rejected``: what is put back is said by a record more.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from ledger.rejections import Rejection

# The source of a delivery that ingress refused: it has no place in the log.
HTTP: Final = "http"

RejectedRecord = tuple[bytes, bytes, Sequence[tuple[str, bytes]]]


def rejected_record(
    body: bytes,
    rejection: Rejection,
    event_id: str | None,
    source: tuple[str, int, int] | None,
) -> RejectedRecord:
    """Return key, value and headers; ``source`` is topic, partition and offset, where there is one.

    The key is the event's id where one could be read, else the SHA-256 of the bytes in hex: the
    same rejection, written again after a crash, has the same key and the same bytes.
    """
    key = event_id.encode() if event_id else sha256(body).hexdigest().encode()
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
