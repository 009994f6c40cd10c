"""Builds record batches that the ledger never writes, but that other producers can write."""

import zlib

from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.record.default_records import DefaultRecordBase, DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

HEADER = DefaultRecordBase.HEADER_STRUCT
GZIP = DefaultRecordBase.CODEC_GZIP
MIB = 1024 * 1024
PACKERS = {
    GZIP: gzip_encode,
    DefaultRecordBase.CODEC_SNAPPY: snappy_encode,
    DefaultRecordBase.CODEC_LZ4: lz4_encode,
    DefaultRecordBase.CODEC_ZSTD: zstd_encode,
}
_BASE_OFFSET, _LENGTH, _CHECKSUM, _ATTRIBUTES = 0, 1, 4, 5
# The length of a batch does not count these bytes, which hold the first offset and the length.
_BEFORE_LENGTH_COUNTS = 12

Headers = list[tuple[str, bytes | None]]
Fields = tuple[bytes | None, bytes | None, Headers]


def batch(*records: Fields, at: int = 0, codec: int = 0, timestamp_ms: int = 1000) -> bytes:
    """Return a batch as a broker sends it, with the first record at the offset ``at``."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 30)
    for number, (key, value, headers) in enumerate(records):
        assert builder.append(number, timestamp_ms + number, key, value, headers)
    return placed(bytes(builder.build()), at)


def placed(built: bytes, at: int) -> bytes:
    """Return the batch with ``at`` as its first offset, and with a correct checksum."""
    header = list(HEADER.unpack_from(built))
    header[_BASE_OFFSET] = at
    header[_CHECKSUM] = calc_crc32c(built[DefaultRecordBase.ATTRIBUTES_OFFSET :])
    return HEADER.pack(*header) + built[HEADER.size :]


def with_body(built: bytes, body: bytes, codec: int = GZIP) -> bytes:
    """Return the batch with other bytes in place of its records."""
    header = list(HEADER.unpack_from(built))
    header[_LENGTH] = HEADER.size - _BEFORE_LENGTH_COUNTS + len(body)
    header[_ATTRIBUTES] = codec
    return placed(HEADER.pack(*header) + body, header[_BASE_OFFSET])


def with_codec(built: bytes, codec: int) -> bytes:
    """Return the batch with another codec in its attributes, and the same records."""
    header = list(HEADER.unpack_from(built))
    header[_ATTRIBUTES] = header[_ATTRIBUTES] & ~DefaultRecordBase.CODEC_MASK | codec
    return placed(HEADER.pack(*header) + built[HEADER.size :], header[_BASE_OFFSET])


def packed_zeros(size: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """Return the gzip stream of ``before``, ``size`` zeros and ``after``, compressed in pieces."""
    stream = zlib.compressobj(9, wbits=31)
    zeros = bytes(MIB)
    pieces = [stream.compress(before)]
    pieces += [stream.compress(zeros[: min(MIB, size - at)]) for at in range(0, size, MIB)]
    return b"".join([*pieces, stream.compress(after), stream.flush()])


def bomb(size: int, at: int = 0, timestamp_ms: int = 1000, codec: int = GZIP) -> bytes:
    """Return a batch that a broker accepts, with one record whose value is ``size`` zeros."""
    small = batch((b"k", b"", []), timestamp_ms=timestamp_ms)
    # A record begins with attributes, two deltas and the key (here one byte). The value and the
    # headers (here none) follow.
    before = b"\x00\x00\x00" + varint(1) + b"k" + varint(size)
    record = varint(len(before) + size + 1) + before
    if codec == GZIP:
        body = packed_zeros(size, record, b"\x00")
    else:
        body = PACKERS[codec](record + bytes(size) + b"\x00")
    return placed(with_body(small, body, codec), at)


def varint(number: int) -> bytes:
    """Return a number in the encoding of Kafka's records: zigzag, with seven bits per byte."""
    number <<= 1
    digits = bytearray()
    while number > 0x7F:
        digits.append(0x80 | (number & 0x7F))
        number >>= 7
    return bytes([*digits, number])
