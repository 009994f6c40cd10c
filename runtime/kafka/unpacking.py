"""Unpacks data packed with one of Kafka's codecs, up to a bound.

Input: the number of a codec, and packed bytes. Output: the unpacked bytes, ``TooMuchError`` as soon
as the output exceeds the bound, or ``UnpackError`` for invalid input. Invariant: no input makes
this module use much more memory than the bound.
"""

import mmap
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import cramjam
from aiokafka.record.default_records import DefaultRecordBase as Base

_GZIP_BITS: Final = 31
_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES: Final = 16
_BLOCK_LENGTH: Final = struct.Struct(">i")


class UnpackError(Exception):
    """The bytes are not valid for their codec."""


class TooMuchError(Exception):
    """The unpacked bytes exceed the bound."""


def unpack(number: int, packed: memoryview, bound: int) -> bytes | memoryview:
    """Return the unpacked bytes."""
    if number == Base.CODEC_NONE:
        return packed
    unpacker = _UNPACKERS.get(number)
    if unpacker is None:
        raise UnpackError(f"Kafka has no codec {number}")
    return unpacker(packed, bound)


def _gunzip(packed: memoryview, bound: int) -> bytes:
    stream = zlib.decompressobj(_GZIP_BITS)
    try:
        unpacked = stream.decompress(packed, bound + 1)
    except zlib.error as error:
        raise UnpackError(str(error)) from None
    if len(unpacked) > bound:
        raise TooMuchError
    if not stream.eof or stream.unused_data:
        # Kafka's clients write one stream. Unpacking a batch of many empty streams would take
        # hours.
        raise UnpackError("the batch is not one whole gzip stream")
    return unpacked


def _snappy(packed: memoryview, bound: int) -> bytes:
    raw = packed.tobytes()
    if not raw.startswith(_XERIAL_MAGIC):
        return _snappy_block(raw, bound)
    blocks: list[bytes] = []
    left = bound
    for block in _xerial_blocks(raw):
        blocks.append(_snappy_block(block, left))
        left -= len(blocks[-1])
    return b"".join(blocks)


def _xerial_blocks(raw: bytes) -> Iterator[bytes]:
    at = _XERIAL_HEADER_BYTES
    while at < len(raw):
        try:
            (length,) = _BLOCK_LENGTH.unpack_from(raw, at)
        except struct.error as error:
            raise UnpackError(str(error)) from None
        at += _BLOCK_LENGTH.size
        if not 0 < length <= len(raw) - at:
            raise UnpackError(f"a block of {length} bytes at {at} of {len(raw)}")
        yield raw[at : at + length]
        at += length


def _snappy_block(block: bytes, bound: int) -> bytes:
    try:
        # The size is checked first, because the decoder would at once allocate the size that the
        # block declares.
        if cramjam.snappy.decompress_raw_len(block) > bound:
            raise TooMuchError
        return bytes(cramjam.snappy.decompress_raw(block))
    except cramjam.DecompressionError as error:
        raise UnpackError(str(error)) from None


def _into_buffer(packed: memoryview, bound: int, decompress_into: Callable[..., int]) -> bytes:
    """Unpack into a buffer of the bound's size; only the buffer's used pages take memory."""
    with mmap.mmap(-1, bound) as buffer:
        try:
            size = decompress_into(packed.tobytes(), buffer)
        except cramjam.DecompressionError as error:
            if "whole buffer" in str(error):
                raise TooMuchError from None
            raise UnpackError(str(error)) from None
        return bytes(buffer[:size])


def _lz4(packed: memoryview, bound: int) -> bytes:
    return _into_buffer(packed, bound, cramjam.lz4.decompress_into)


def _zstd(packed: memoryview, bound: int) -> bytes:
    return _into_buffer(packed, bound, cramjam.zstd.decompress_into)


_UNPACKERS: Final[Mapping[int, Callable[[memoryview, int], bytes]]] = MappingProxyType(
    {
        Base.CODEC_GZIP: _gunzip,
        Base.CODEC_SNAPPY: _snappy,
        Base.CODEC_LZ4: _lz4,
        Base.CODEC_ZSTD: _zstd,
    }
)
