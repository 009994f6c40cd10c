"""The digest of a table: one number for all of its rows, whatever their order.

Input: rows, as a key and a value. Output: a number of 64 bits, and the number of rows.
A digest is the sum of its rows' hashes, so a row is added and taken away without a look at the
other rows, and two tables with the same rows have the same digest. A flipped bit, a lost row and a
row too many change the sum; the chance that they do not is 1 in 2^64. It does not protect against
somebody who chooses rows to that end (https://doi.org/10.1007/3-540-69053-0_13, section 2).
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from xxhash import xxh3_64_intdigest

RESERVED: Final = b"\xff"
"""Keys that start with this byte are no rows; no UTF-8 text starts with it."""

_MODULUS: Final = 1 << 64


class Digest(msgspec.Struct, frozen=True, gc=False):
    """The digest of some rows, and how many they are."""

    value: int = 0
    rows: int = 0

    def changed(self, value: int, rows: int) -> "Digest":
        """Return the digest after a change of both numbers."""
        return Digest((self.value + value) % _MODULUS, self.rows + rows)

    def __str__(self) -> str:
        """Return the digest in hex."""
        return f"{self.value:016x}"


def row_hash(key: bytes, value: bytes) -> int:
    """Return a row's part of the digest.

    The hash of the key is the seed for the value's, so that bytes which move from one to the other
    change the result.
    """
    return xxh3_64_intdigest(value, xxh3_64_intdigest(key))


def digest_of(rows: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]]) -> Digest:
    """Return the digest of rows.

    >>> digest_of({b"a": b"1", b"b": b"2"}) == digest_of({b"b": b"2", b"a": b"1"})
    True
    """
    pairs = rows.items() if isinstance(rows, Mapping) else rows
    running = RunningDigest()
    for key, value in pairs:
        running.replace(key, None, value)
    return running.now


class RunningDigest:
    """A digest that follows changes of single rows; ``now`` is the digest after all of them."""

    __slots__ = ("rows", "value")

    def __init__(self) -> None:
        self.value = 0
        self.rows = 0

    def replace(self, key: bytes, before: bytes | None, after: bytes | None) -> None:
        """Replace a row's value; ``None`` stands for no row."""
        if before is not None:
            self.value -= row_hash(key, before)
            self.rows -= 1
        if after is not None:
            self.value += row_hash(key, after)
            self.rows += 1

    @property
    def now(self) -> Digest:
        """The digest after all changes so far."""
        return Digest().changed(self.value, self.rows)


class ChangelogDigest:
    """The digest of one changelog partition's rows, at chosen offsets, while the records are read.

    ``position`` is the offset below which every record was read. ``at`` holds the digest of the
    rows below each chosen offset that the reading has reached.
    """

    __slots__ = ("_chosen", "_running", "at", "position")

    def __init__(self) -> None:
        self.position = 0
        self.at: dict[int, Digest] = {}
        self._running = RunningDigest()
        self._chosen: list[int] = []

    def choose(self, offsets: Iterable[int]) -> None:
        """Choose offsets in place of the earlier ones; those below ``position`` come too late."""
        self.at = {}
        self._chosen = sorted(offset for offset in set(offsets) if offset >= self.position)

    def take(self, offset: int, key: bytes, before: bytes | None, after: bytes | None) -> None:
        """Take the next record: the key had the value ``before``, and has ``after`` from now on."""
        self.reach(offset)
        if not key.startswith(RESERVED):
            self._running.replace(key, before, after)
        self.position = max(self.position, offset + 1)

    def reach(self, end: int) -> None:
        """Note that every record below an offset was taken."""
        while self._chosen and self._chosen[0] <= end:
            self.at[self._chosen.pop(0)] = self._running.now
        self.position = max(self.position, end)
