"""The file of a log of record: frames with checksums, in a format of its own (`docs/log-file.md`).

In: blocks of records, and a binary file to write to; or such a file. Out: the file; or its blocks,
byte for byte as they were. Never: a block whose checksum is wrong, or the end of a file that has
lost its end: ``LogFileError`` says at which block. Never more than one block in memory.

A frame is its kind, the length of its payload, the payload, and the SHA-256 of *all* that stands in
the file before the digest. So a block that is altered, missing, doubled or moved is found there.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Final, NamedTuple, TypeVar

import msgspec

from cli.errors import LogFileError

MAGIC: Final = b"plexy-ledger log 1\n"

_HEADER, _BLOCK, _END = b"H", b"B", b"E"
_FRAME: Final = struct.Struct(">cI")
_DIGEST_BYTES: Final = hashlib.sha256().digest_size
# A fetch of one partition is 1 MiB, or one record of at most 10 MiB. A longer frame is damage, and
# is not to be read into memory.
_MAX_FRAME_BYTES: Final = 64 * 1024 * 1024

T = TypeVar("T")


class LogRecord(NamedTuple):
    """A record as Kafka keeps it, without its place; ``timestamp_ms`` is its ``CreateTime``."""

    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """Which log it is, and when it was read; ``begins`` and ``ends`` are offsets by partition."""

    topic: str
    cluster_id: str
    exported_at: str
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def partitions(self) -> int:
        """The topic's number of partitions."""
        return len(self.ends)

    @property
    def records(self) -> int:
        """How many records there are, if no offset is missing."""
        return sum(end - begin for begin, end in zip(self.begins, self.ends, strict=True))


class Block(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive records of one partition, the first at ``offset``."""

    partition: int
    offset: int
    records: list[LogRecord]

    @property
    def next_offset(self) -> int:
        """The offset after the last record."""
        return self.offset + len(self.records)


class Extent(msgspec.Struct, frozen=True):
    """What a file holds of a partition; ``first`` and ``last`` are ``None`` where it is empty."""

    records: int = 0
    first: int | None = None
    last: int | None = None


class End(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds: its writer counted it, and its reader counts again."""

    blocks: int
    records: int
    partitions: tuple[Extent, ...]


class Gap(NamedTuple):
    """Offsets that the log had, and no record under them; ``last`` is one of them."""

    partition: int
    first: int
    last: int

    def __str__(self) -> str:
        return f"partition {self.partition}, offsets {self.first} to {self.last}"


class Inventory:
    """Counts blocks as they pass, and notes which offsets no block has."""

    def __init__(self, header: Header) -> None:
        self.gaps: list[Gap] = []
        self._header = header
        self._blocks = 0
        self._held = [Extent()] * header.partitions
        # The log of record begins at 0: whatever is before its first record was there once.
        self._next = [0] * header.partitions

    def count(self, block: Block) -> None:
        """Take the next block; ``ValueError`` where it can't stand."""
        partition, expected = block.partition, self._next[block.partition]
        last = block.next_offset - 1
        if block.offset < expected or last < block.offset:
            raise ValueError(f"offset {block.offset} stands where {expected} was to come")
        if block.offset > expected:
            self.gaps.append(Gap(partition, expected, block.offset - 1))
        self._next[partition] = block.next_offset
        self._blocks += 1
        held = self._held[partition]
        first = block.offset if held.first is None else held.first
        self._held[partition] = Extent(held.records + len(block.records), first, last)

    def end(self) -> End:
        """Return what was counted, after the last block."""
        for partition, (reached, end) in enumerate(zip(self._next, self._header.ends, strict=True)):
            if reached < end:
                self.gaps.append(Gap(partition, reached, end - 1))
        records = sum(held.records for held in self._held)
        return End(blocks=self._blocks, records=records, partitions=tuple(self._held))


class LogFileWriter:
    """Writes one file: the header at once, then ``write`` each block, then ``end``."""

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self.inventory = Inventory(header)
        self._file = file
        self._digest = hashlib.sha256()
        self._put(MAGIC)
        self._frame(_HEADER, msgspec.json.encode(header))

    def write(self, block: Block) -> None:
        """Write a block."""
        self.inventory.count(block)
        self._frame(_BLOCK, zlib.compress(msgspec.msgpack.encode(block)))

    def end(self) -> End:
        """Write the end, without which a file is not whole."""
        end = self.inventory.end()
        self._frame(_END, msgspec.json.encode(end))
        return end

    def _frame(self, kind: bytes, payload: bytes) -> None:
        self._put(_FRAME.pack(kind, len(payload)))
        self._put(payload)
        self._put(self._digest.digest())

    def _put(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


class LogFile:
    """A file that is read: its header is there at once, then ``blocks``, then ``end``."""

    end: End

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._where = "its header"
        if self._take(len(MAGIC)) != MAGIC:
            raise LogFileError(
                f"it is no log file of this version: it does not begin with {MAGIC.decode()!r}"
            )
        kind, payload = self._frame()
        if kind != _HEADER:
            raise self._damaged(f"expected a frame {_HEADER!r}, got {kind!r}")
        self.header = self._decoded(payload, Header)
        self._inventory = Inventory(self.header)

    @property
    def gaps(self) -> list[Gap]:
        """Offsets that no block has; complete once all blocks were read."""
        return self._inventory.gaps

    def blocks(self) -> Iterator[Block]:
        """Yield each block, checked; ``LogFileError`` at the first that is not as it was written.

        Only a file that is read up to its end is whole.
        """
        number = 1
        while True:
            self._where = f"block {number}"
            kind, payload = self._frame()
            if kind == _END:
                break
            if kind != _BLOCK:
                raise self._damaged(f"expected a frame {_BLOCK!r} or {_END!r}, got {kind!r}")
            block = self._block(payload)
            yield block
            number += 1
        self._where = "its end"
        self.end = self._decoded(payload, End)
        found = self._inventory.end()
        if found != self.end:
            raise self._damaged(f"it says {self.end}, and there are {found}")
        if self._file.read(1):
            raise self._damaged("the file goes on behind it")

    def _block(self, payload: bytes) -> Block:
        try:
            block = msgspec.msgpack.decode(zlib.decompress(payload), type=Block)
            self._inventory.count(block)
        except (zlib.error, msgspec.DecodeError, ValueError, IndexError) as error:
            raise self._damaged(str(error)) from None
        return block

    def _frame(self) -> tuple[bytes, bytes]:
        kind, length = _FRAME.unpack(self._take(_FRAME.size))
        if length > _MAX_FRAME_BYTES:
            raise self._damaged(f"{length} bytes are more than a frame may have")
        payload = self._take(length)
        expected = self._digest.digest()
        if self._take(_DIGEST_BYTES) != expected:
            raise self._damaged("its checksum is wrong")
        return kind, payload

    def _take(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) < length:
            raise self._damaged("the file ends there, so it was cut off")
        self._digest.update(data)
        return data

    def _decoded(self, payload: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(payload, type=kind)
        except msgspec.DecodeError as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, why: str) -> LogFileError:
        return LogFileError(f"it is damaged at {self._where}: {why}")


def as_blocks(partition: int, offsets: Sequence[int], records: Iterable[LogRecord]) -> list[Block]:
    """Return a partition's records as blocks without a gap inside; mostly it is one."""
    blocks: list[Block] = []
    for offset, record in zip(offsets, records, strict=True):
        if not blocks or offset != blocks[-1].next_offset:
            blocks.append(Block(partition, offset, []))
        blocks[-1].records.append(record)
    return blocks
