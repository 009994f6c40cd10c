"""Marks: what a table remembers of one record, by which it knows a log again.

Input: a record. Output: its offset, and a fingerprint of its key, value and timestamp. An offset
alone does not tell a log that lost its end, and has grown again, from the log that a table was
folded from. Two records that were written at the same offset differ in their timestamps at least.
"""

from collections.abc import Mapping
from typing import Final, Self

import msgspec
from xxhash import xxh3_64_intdigest

from ledger.digest import RESERVED

SOURCE_KEY: Final = RESERVED + b"source"
"""The key under which a table and its changelog keep the mark of the last source record folded."""

FED_KEY: Final = RESERVED + b"fed"
"""The key under which both keep up to where the topic of the next hop was written."""


class Mark(msgspec.Struct, frozen=True, gc=False):
    """One record of a partition."""

    offset: int
    fingerprint: int

    @classmethod
    def of(cls, offset: int, timestamp_ms: int, key: bytes | None, value: bytes | None) -> Self:
        """Return the mark of a record."""
        of_key = xxh3_64_intdigest(key or b"", timestamp_ms)
        return cls(offset, xxh3_64_intdigest(value or b"", of_key))

    def encode(self) -> bytes:
        """Return the mark as a table and a changelog hold it."""
        return b"%d %d" % (self.offset, self.fingerprint)

    @classmethod
    def decode(cls, stored: bytes) -> Self:
        """Return the mark that ``encode`` wrote."""
        return cls(*map(int, stored.split()))


def encode_ends(ends: Mapping[int, int]) -> bytes:
    """Return ends of partitions by number, as a table and a changelog hold them."""
    return b" ".join(b"%d:%d" % each for each in sorted(ends.items()))


def decode_ends(stored: bytes) -> dict[int, int]:
    """Return the ends that ``encode_ends`` wrote."""
    pairs = (each.split(b":") for each in stored.split())
    return {int(number): int(end) for number, end in pairs}
