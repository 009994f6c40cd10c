"""Writes and reads an exported log of record, in the format of `docs/log-file.md`.

A reader gets every block byte for byte as it was written. A wrong checksum or a missing end raises
a ``LogFileError`` that names the block.

Memory holds one block at a time, and the size of a block is limited during its decompression,
because a file of one megabyte could otherwise expand to a gigabyte.

A frame consists of its kind, the length of its payload, the payload, and the SHA-256 of *all* bytes
of the file before this SHA-256. So if a block is altered, missing, repeated or moved, a checksum is
wrong.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, BinaryIO, Final, NamedTuple, TypeVar

import msgspec

from cli.errors import LogFileError

MAGIC: Final = b"plexy-ledger log 1\n"

_HEADER, _BLOCK, _END = b"H", b"B", b"E"
_FRAME: Final = struct.Struct(">cI")
_DIGEST_BYTES: Final = hashlib.sha256().digest_size
# The largest record of a ledger's log has 10 MiB in Kafka. If this record consists of empty
# headers, it takes 15 MiB here: an empty header has two bytes in Kafka, and three bytes in
# MessagePack. A decoded block of 16 MiB takes at most 0.5 GB of memory.
MAX_BLOCK_BYTES: Final = 16 * 1024 * 1024
# zlib adds five bytes per 16 KiB of incompressible data.
_MAX_PACKED_BYTES: Final = MAX_BLOCK_BYTES + 64 * 1024
# The header and the end have about 50 bytes per partition, and a topic has at most 1,000
# partitions.
_MAX_JSON_BYTES: Final = 1024 * 1024

# msgspec raises these errors for a wrong type, for text that is not UTF-8, and for deep nesting.
_UNREADABLE: Final = (msgspec.DecodeError, ValueError, RecursionError)

T = TypeVar("T")


class LogRecord(NamedTuple):
    """A record of Kafka without its place; ``timestamp_ms`` is its ``CreateTime``."""

    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The exported log, the time of the export, and each partition's first and end offset."""

    topic: str
    cluster_id: str
    exported_at: str
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse a header that does not have two offsets for each partition."""
        if len(self.begins) != len(self.ends):
            raise ValueError(f"{len(self.begins)} `begins` and {len(self.ends)} `ends`")

    @property
    def partitions(self) -> int:
        """The topic's number of partitions."""
        return len(self.ends)

    @property
    def records(self) -> int:
        """The number of records, if no offset is missing."""
        return sum(end - begin for begin, end in zip(self.begins, self.ends, strict=True))


class Block(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive records of one partition, the first at ``offset``."""

    partition: Annotated[int, msgspec.Meta(ge=0)]
    offset: Annotated[int, msgspec.Meta(ge=0)]
    records: list[LogRecord]

    @property
    def next_offset(self) -> int:
        """The offset after the last record."""
        return self.offset + len(self.records)


class Extent(msgspec.Struct, frozen=True):
    """A partition's records in a file; ``first`` and ``last`` are ``None`` if it has no records."""

    records: int = 0
    first: int | None = None
    last: int | None = None


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The file's contents as the writer counted them; a reader compares them with its own count."""

    blocks: int
    records: int
    partitions: tuple[Extent, ...]


class Gap(NamedTuple):
    """The offsets from ``first`` to ``last`` (included), which have no record in the file."""

    partition: int
    first: int
    last: int

    def __str__(self) -> str:
        return f"partition {self.partition}, offsets {self.first} to {self.last}"


class LeftOut(NamedTuple):
    """A record that is too large for a file, and its size in MessagePack."""

    partition: int
    offset: int
    size_bytes: int

    def __str__(self) -> str:
        return f"partition {self.partition}, offset {self.offset}, {self.size_bytes:,} bytes"


class Inventory:
    """Counts the blocks of a file, and collects the offsets that no block has."""

    def __init__(self, header: Header) -> None:
        self.gaps: list[Gap] = []
        self._header = header
        self._blocks = 0
        self._held = [Extent()] * header.partitions
        # The log of record begins at offset 0, so the offsets before the first record are missing.
        self._next = [0] * header.partitions

    def count(self, block: Block) -> None:
        """Count the next block; raise ``ValueError`` if its offset is wrong."""
        partition, expected = block.partition, self._next[block.partition]
        last = block.next_offset - 1
        if block.offset < expected or last < block.offset:
            raise ValueError(f"got offset {block.offset}, expected {expected} or a later offset")
        if block.offset > expected:
            self.gaps.append(Gap(partition, expected, block.offset - 1))
        self._next[partition] = block.next_offset
        self._blocks += 1
        held = self._held[partition]
        first = block.offset if held.first is None else held.first
        self._held[partition] = Extent(held.records + len(block.records), first, last)

    def end(self) -> End:
        """Return the counts after the last block."""
        for partition, (reached, end) in enumerate(zip(self._next, self._header.ends, strict=True)):
            if reached < end:
                self.gaps.append(Gap(partition, reached, end - 1))
        records = sum(held.records for held in self._held)
        return End(blocks=self._blocks, records=records, partitions=tuple(self._held))


class LogFileWriter:
    """Writes one file: the header on creation, each block by ``write``, then the ``end``."""

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self.inventory = Inventory(header)
        self.left_out: list[LeftOut] = []
        self._file = file
        self._digest = hashlib.sha256()
        self._put(MAGIC)
        self._frame(_HEADER, msgspec.json.encode(header))

    def write(self, block: Block) -> None:
        """Write a block; split it if it is too large, and leave out a record that is too large."""
        encoded = msgspec.msgpack.encode(block)
        if len(encoded) <= MAX_BLOCK_BYTES:
            self.inventory.count(block)
            self._frame(_BLOCK, zlib.compress(encoded))
        elif len(block.records) == 1:
            self.left_out.append(LeftOut(block.partition, block.offset, len(encoded)))
        else:
            half = len(block.records) // 2
            self.write(Block(block.partition, block.offset, block.records[:half]))
            self.write(Block(block.partition, block.offset + half, block.records[half:]))

    def end(self) -> End:
        """Write the end; a file that has no end is incomplete."""
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
    """Reads one file: the header on creation, then ``blocks``, then ``end``."""

    end: End

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._where = "its header"
        if self._take(len(MAGIC)) != MAGIC:
            raise LogFileError(
                "it is not a log file of this version: expected it to begin with "
                f"{MAGIC.decode()!r}"
            )
        kind, payload = self._frame()
        if kind != _HEADER:
            raise self._damaged(f"expected a frame {_HEADER!r}, got {kind!r}")
        self.header = self._decoded(payload, Header)
        self._inventory = Inventory(self.header)

    @property
    def gaps(self) -> list[Gap]:
        """The offsets that no block has; the list is complete after all blocks have been read."""
        return self._inventory.gaps

    def blocks(self) -> Iterator[Block]:
        """Yield each block after checking it; raise ``LogFileError`` at the first fault.

        A file is undamaged only if it can be read to its end.
        """
        number = 1
        while True:
            self._where = f"block {number}"
            kind, payload = self._frame()
            if kind == _END:
                break
            if kind != _BLOCK:
                raise self._damaged(f"expected a frame {_BLOCK!r} or {_END!r}, got {kind!r}")
            yield self._block(payload)
            number += 1
        self._where = "its end"
        self.end = self._decoded(payload, End)
        found = self._inventory.end()
        if found != self.end:
            raise self._damaged(f"expected {self.end!s:.300}, found {found!s:.300}")
        if self._file.read(1):
            raise self._damaged("the file continues after it")

    def _block(self, payload: bytes) -> Block:
        try:
            block = msgspec.msgpack.decode(_unpacked(payload), type=Block)
            self._inventory.count(block)
        except (*_UNREADABLE, zlib.error, IndexError) as error:
            raise self._damaged(str(error)) from None
        return block

    def _frame(self) -> tuple[bytes, bytes]:
        kind, length = _FRAME.unpack(self._take(_FRAME.size))
        limit = _MAX_PACKED_BYTES if kind == _BLOCK else _MAX_JSON_BYTES
        if length > limit:
            raise self._damaged(f"got a frame of {length} bytes, expected at most {limit}")
        payload = self._take(length)
        expected = self._digest.digest()
        if self._take(_DIGEST_BYTES) != expected:
            raise self._damaged("its checksum is wrong")
        return kind, payload

    def _take(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) < length:
            raise self._damaged("the file ends there, so it was truncated")
        self._digest.update(data)
        return data

    def _decoded(self, payload: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(payload, type=kind)
        except _UNREADABLE as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, why: str) -> LogFileError:
        return LogFileError(f"it is damaged at {self._where}: {why}")


def _unpacked(payload: bytes) -> bytes:
    """Decompress a block; raise ``ValueError`` as soon as it exceeds the limit."""
    unpacking = zlib.decompressobj()
    # The extra byte distinguishes a block whose size is exactly the limit from a larger block.
    encoded = unpacking.decompress(payload, MAX_BLOCK_BYTES + 1)
    if len(encoded) > MAX_BLOCK_BYTES:
        raise ValueError(f"it decompresses to more than the limit of {MAX_BLOCK_BYTES} bytes")
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError("it is not exactly one zlib stream")
    return encoded


def as_blocks(partition: int, offsets: Sequence[int], records: Iterable[LogRecord]) -> list[Block]:
    """Return a partition's records as blocks of consecutive offsets, usually one block."""
    blocks: list[Block] = []
    for offset, record in zip(offsets, records, strict=True):
        if not blocks or offset != blocks[-1].next_offset:
            blocks.append(Block(partition, offset, []))
        blocks[-1].records.append(record)
    return blocks
