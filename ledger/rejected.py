"""The record of a rejection in ``plexy.rejected``: the bytes as they came, and why.

In: a body, its rejection, and where it was read from. Out: key, value and headers of the record.
"""

from collections.abc import Sequence
from hashlib import sha256

from ledger.rejections import Rejection

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
