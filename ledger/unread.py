"""The value that stands for a batch of records that could not be read.

Input: the offsets of a batch, and the reason why it was not read. Output: the value of one record
at the batch's last offset. Every fold rejects this value, like any other value that is not an
event. Only the reader of a topic (``runtime.kafka.fetched``) creates such values; Kafka never
contains such a value.
"""

from typing import Self

from ledger.rejections import Reason, Rejection


class UnreadBatch(bytes):
    """The value of the record that stands for a batch; its bytes are a sentence for people."""

    reason: Reason
    first_offset: int

    @classmethod
    def of(cls, reason: Reason, first_offset: int, last_offset: int, why: str) -> Self:
        """Return the value for the batch with these offsets; ``why`` ends the sentence."""
        text = f"the batch of offsets {first_offset} to {last_offset} {why}"
        value = cls(text.encode())
        value.reason, value.first_offset = reason, first_offset
        return value


def first_offset_of(offset: int, value: bytes | None) -> int:
    """Return a record's offset, or the first offset of the batch that it stands for.

    >>> first_offset_of(9, UnreadBatch.of(Reason.BATCH_TOO_LARGE, 3, 9, "is too large"))
    3
    >>> first_offset_of(9, b"{}")
    9
    """
    return value.first_offset if isinstance(value, UnreadBatch) else offset


def unread_or(rejection: Rejection, value: bytes | None) -> Rejection:
    """Return ``rejection`` or, if the value stands for a batch, why the batch was not read."""
    if isinstance(value, UnreadBatch):
        return Rejection(reason=value.reason, detail=value.decode())
    return rejection
