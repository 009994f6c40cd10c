"""A mark identifies one record.

With the mark of the last folded record, a table can check that the source log is still the log that
the table was folded from. A mark has the record's offset, and a fingerprint of its key, value and
timestamp. The offset alone is not enough: a log that lost its end may have grown again, with a
different record at this offset. Two records that were written at the same offset differ at least in
their timestamps.
"""

from collections.abc import Mapping
from typing import Final, Self

import msgspec
from xxhash import xxh3_64_intdigest

from ledger.digest import RESERVED

SOURCE_KEY: Final = RESERVED + b"source"
"""The key under which a table and its changelog store the mark of the last folded source record."""

FED_KEY: Final = RESERVED + b"fed"
"""The key under which a table and its changelog store end offsets of the next hop's partitions.

A hop is one of the worker's agents, with its source topic and its table. For each partition, the
stored end offset is the offset after the last record that the table's own hop wrote to the
partition.
"""

HAD_KEY: Final = RESERVED + b"had"
"""The key under which a table and its changelog store how far the source was folded before a loss.

The value is stored only if the table has lost records. It is the source offset up to which the
table was folded before the loss.
"""


class Mark(msgspec.Struct, frozen=True, gc=False):
    """The mark of one record of a partition."""

    offset: int
    fingerprint: int

    @classmethod
    def of(cls, offset: int, timestamp_ms: int, key: bytes | None, value: bytes | None) -> Self:
        """Return the mark of a record."""
        of_key = xxh3_64_intdigest(key or b"", timestamp_ms)
        return cls(offset, xxh3_64_intdigest(value or b"", of_key))

    def encode(self) -> bytes:
        """Return the mark in the form that tables and changelogs store."""
        return b"%d %d" % (self.offset, self.fingerprint)

    @classmethod
    def decode(cls, stored: bytes) -> Self:
        """Return the mark that ``encode`` encoded."""
        return cls(*map(int, stored.split()))


def encode_ends(ends: Mapping[int, int]) -> bytes:
    """Encode the partitions' end offsets in the form that tables and changelogs store."""
    return b" ".join(b"%d:%d" % each for each in sorted(ends.items()))


def decode_ends(stored: bytes) -> dict[int, int]:
    """Return the end offsets that ``encode_ends`` encoded."""
    pairs = (each.split(b":") for each in stored.split())
    return {int(number): int(end) for number, end in pairs}
