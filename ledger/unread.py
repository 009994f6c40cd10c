"""A batch of records that nobody reads, and the value that stands for it.

In: the offsets of a batch, and the reason why it was not read. Out: the value of a single
record, at the last of these offsets, that every fold rejects like any other value that is not an
event. The reader of a topic makes it (``runtime.fetched``); a record that was written can't be one.
"""

from typing import Self

from ledger.rejections import Reason, Rejection


class UnreadBatch(bytes):
    """The value of the record that stands for a batch; its bytes are the sentence for people."""

    reason: Reason
    first_offset: int

    @classmethod
    def of(cls, reason: Reason, first_offset: int, last_offset: int, why: str) -> Self:
        """Return the value for the batch of these offsets; ``why`` ends the sentence."""
        text = f"the batch of offsets {first_offset} to {last_offset} {why}"
        value = cls(text.encode())
        value.reason, value.first_offset = reason, first_offset
        return value


def first_offset_of(offset: int, value: bytes | None) -> int:
    """Return the first offset that a record stands for: its own, unless it stands for a batch.

    >>> first_offset_of(9, UnreadBatch.of(Reason.BATCH_TOO_LARGE, 3, 9, "is too large"))
    3
    >>> first_offset_of(9, b"{}")
    9
    """
    return value.first_offset if isinstance(value, UnreadBatch) else offset


def unread_or(rejection: Rejection, value: bytes | None) -> Rejection:
    """Return why a value that is no event is not counted: ``rejection``, unless nobody read it."""
    if isinstance(value, UnreadBatch):
        return Rejection(reason=value.reason, detail=value.decode())
    return rejection
