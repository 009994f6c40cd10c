"""The digest of a table: a 64-bit number that is the same for any order of rows, and a row count.

The 64-bit number is the sum of the rows' hashes. So a row can be added or removed without reading
the other rows, and two tables with the same rows have the same digest. A flipped bit, a lost row or
an extra row changes the sum, except with a probability of 1 in 2^64. A digest does not protect
against deliberately chosen rows (https://doi.org/10.1007/3-540-69053-0_13, section 2).
"""

from array import array
from bisect import bisect_right
from collections.abc import Mapping
from typing import Final

import msgspec
from xxhash import xxh3_64_intdigest

from ledger.topics import TableName

RESERVED: Final = b"\xff"
"""A key that starts with this byte is not the key of a row; no UTF-8 text starts with the byte."""

_MODULUS: Final = 1 << 64


class Digest(msgspec.Struct, frozen=True, gc=False):
    """The digest and the number of some rows, or the difference between two such digests."""

    value: int = 0
    rows: int = 0

    def plus(self, other: "Digest") -> "Digest":
        """Return the digest of these rows and the other rows together."""
        return Digest((self.value + other.value) % _MODULUS, self.rows + other.rows)

    def minus(self, other: "Digest") -> "Digest":
        """Return the digest of these rows without the other rows."""
        return Digest((self.value - other.value) % _MODULUS, self.rows - other.rows)

    def __str__(self) -> str:
        """Return the digest in hex."""
        return f"{self.value:016x}"


def digest_of(rows: Mapping[bytes, bytes]) -> Digest:
    """Return the digest of rows.

    The hash of a key is the seed of its value's hash, so the result changes if bytes move from a
    key to its value.

    >>> digest_of({b"a": b"1", b"b": b"2"}) == digest_of({b"b": b"2", b"a": b"1"})
    True
    """
    keys = map(xxh3_64_intdigest, rows)
    return Digest(sum(map(xxh3_64_intdigest, rows.values(), keys)) % _MODULUS, len(rows))


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """A partition whose files were deleted, because its rows on disk were not the written rows."""

    table: TableName
    partition: int
    found_at_ms: int
    detail: str


class RunningDigest:
    """A digest that is updated with each changed row; ``now`` is the current digest."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = Digest()

    def replace(self, key: bytes, before: bytes | None, after: bytes | None) -> None:
        """Replace a row's value; ``None`` means no row."""
        if before is not None:
            self.now = self.now.minus(digest_of({key: before}))
        if after is not None:
            self.now = self.now.plus(digest_of({key: after}))


class ChangelogDigest:
    """The digests of a changelog partition's rows, at each offset from ``begin`` to ``end``."""

    __slots__ = ("_offsets", "_rows", "_running", "_values", "begin", "end")

    def __init__(self) -> None:
        self.begin = 0
        self.end = 0
        self._running = RunningDigest()
        # A digest is valid from its own offset until the next offset in the array. Arrays take 24
        # bytes for each record; objects would take four times as much.
        self._offsets, self._values, self._rows = array("Q"), array("Q"), array("Q")
        self._note(0)

    def take(self, offset: int, key: bytes, before: bytes | None, after: bytes | None) -> None:
        """Take the next record, which changes the key's value from ``before`` to ``after``."""
        if key.startswith(RESERVED):
            return
        self._running.replace(key, before, after)
        if offset < self.end:
            # The reading was interrupted, so this record is read a second time.
            self._forget_first(len(self._offsets))
            self._note(self.end)
            self.begin = self.end
            return
        self._note(offset + 1)
        self.end = offset + 1

    def reach(self, end: int) -> None:
        """Note that all records below an offset were taken."""
        self.end = max(self.end, end)

    def at(self, offset: int) -> Digest | None:
        """Return the digest of the rows below an offset; ``None`` if it is unknown."""
        if not self.begin <= offset <= self.end:
            return None
        last = bisect_right(self._offsets, offset) - 1
        return Digest(self._values[last], self._rows[last])

    def forget(self, offset: int) -> None:
        """Forget the digests below an offset."""
        if self.begin < offset <= self.end:
            self._forget_first(bisect_right(self._offsets, offset) - 1)
            self.begin = offset

    def _note(self, offset: int) -> None:
        now = self._running.now
        self._offsets.append(offset)
        self._values.append(now.value)
        self._rows.append(now.rows)

    def _forget_first(self, count: int) -> None:
        del self._offsets[:count], self._values[:count], self._rows[:count]
