"""Reads the batches of a fetch within a bound on memory.

Input: a broker's answer to a fetch. Output: records like those of aiokafka. If a batch unpacks to
more than ``MAX_UNPACKED_BYTES``, or can't be read, one record takes the place of the batch.
Invariant: the records depend only on the batch, so all readers of a topic see the same records.

aiokafka 0.14.0 unpacks a compressed batch of any size in one piece. If a header's name is not
UTF-8, aiokafka can't read the header, nor anything after it. Any client with the right to write to
a topic can write such records. ``corrections`` makes every consumer use ``Batches`` in place of
aiokafka's ``MemoryRecords``.
"""

import struct
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, Final, NamedTuple

from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBase, DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.util import decode_varint_py as read_varint

from ledger.rejections import Reason
from ledger.trust import MAX_HEADERS
from ledger.unread import UnreadBatch
from runtime.kafka.unpacking import TooMuchError, UnpackError, unpack

# The topics take batches of up to 10 MiB. A compressed batch may unpack to somewhat more, because a
# producer only estimates the compressed size while it fills the batch.
MAX_UNPACKED_BYTES: Final = 16 * 1024 * 1024
# aiokafka creates objects for every header. So in memory, a record of empty headers takes 36 times
# its size. That is why aiokafka reads only batches up to this size, and this module reads all
# larger batches. Our programs write a larger batch only for a single large record.
_MAX_TRUSTED_BYTES: Final = 1024 * 1024

_INT32: Final = struct.Struct(">i")
_LENGTH_AT: Final = struct.calcsize(">q")
_BEFORE_LENGTH_COUNTS: Final = struct.calcsize(">qi")
_EPOCH_AT: Final = _BEFORE_LENGTH_COUNTS
_MAGIC_AT: Final = struct.calcsize(">qii")
# Before Kafka 0.11, each record had its own header, with the codec after the magic byte.
_LEGACY_CODEC_AT: Final = struct.calcsize(">qiiB")
_LEGACY_BYTES: Final = struct.calcsize(">qiiBBii")
_HEADER: Final = DefaultRecordBase.HEADER_STRUCT
_COUNT_IN_HEADER: Final = 12
_MAGIC: Final = 2


class Batches:
    """The batches of one partition in one fetch.

    ``leader_epoch`` is the epoch of the leader that wrote the last returned batch. Each new leader
    of a partition has a higher epoch. The epoch is -1 for a batch from before Kafka 0.11.
    """

    def __init__(self, data: bytes) -> None:
        self.leader_epoch = -1
        self._data = memoryview(data)
        self._next = 0
        self._last: memoryview | None = None
        self._reopens = False
        self._unpacked_bytes = 0

    def size_in_bytes(self) -> int:
        """Return the size of the broker's answer."""
        return len(self._data)

    def has_next(self) -> bool:
        """Return whether a complete batch follows, and there is room to unpack the batch.

        If not, the batch is fetched again, once the records before it have been taken.
        """
        return self._unpacked_bytes < MAX_UNPACKED_BYTES and self._end() is not None

    def next_batch(self) -> Any:
        """Return the next batch; ``None`` after the last batch."""
        end = self._end()
        if end is None:
            return None
        data = self._data[self._next : max(end, self._next)]
        is_legacy = len(data) >= _LEGACY_BYTES and data[_MAGIC_AT] < _MAGIC
        if not is_legacy and len(data) < _HEADER.size:
            raise CorruptRecordException(f"a batch of {len(data)} bytes")
        self._next = end
        reopens, self._reopens, self._last = self._reopens, False, None
        if is_legacy:
            self.leader_epoch = -1
            return _legacy(data)
        (self.leader_epoch,) = _INT32.unpack_from(data, _EPOCH_AT)
        batch = DefaultRecordBatch(data)
        if not (batch.compression_type or reopens or len(data) > _MAX_TRUSTED_BYTES):
            self._last = data
            return batch
        # A batch with a wrong checksum is damaged, but not malicious. aiokafka reads it, and raises
        # the error.
        if batch.is_control_batch or not batch.validate_crc():
            return batch
        return self._read_here(batch, data)

    def reopen(self) -> bool:
        """Go back to the batch that aiokafka read last, so that this module reads that batch.

        Return ``False`` if there is no such batch.
        """
        if self._last is None:
            return False
        self._next -= len(self._last)
        self._last, self._reopens = None, True
        return True

    def _read_here(self, batch: Any, data: memoryview) -> Any:
        """Return a batch whose records this module reads."""
        packed = data[_HEADER.size :]
        try:
            body = unpack(batch.compression_type, packed, MAX_UNPACKED_BYTES)
        except TooMuchError:
            reason, why = Reason.BATCH_TOO_LARGE, f"unpacks to more than {MAX_UNPACKED_BYTES} bytes"
        except UnpackError as error:
            reason, why = Reason.BATCH_UNREADABLE, f"can't be unpacked: {error}"
        else:
            self._unpacked_bytes += len(body)
            return _Batch(batch, _records(batch, data, body))
        self._unpacked_bytes = MAX_UNPACKED_BYTES
        return _Batch(batch, iter([_stand_in(batch, data, reason, why, batch.base_offset)]))

    def _end(self) -> int | None:
        """Return the end of the next batch; ``None`` if the broker cut that batch off."""
        if len(self._data) - self._next < _BEFORE_LENGTH_COUNTS:
            return None
        (length,) = _INT32.unpack_from(self._data, self._next + _LENGTH_AT)
        end = self._next + _BEFORE_LENGTH_COUNTS + int(length)
        return end if end <= len(self._data) else None


class _Batch:
    """A batch whose records this module reads, with the attributes that aiokafka needs."""

    def __init__(self, batch: Any, records: Iterator["_Record"]) -> None:
        self.base_offset = batch.base_offset
        self.next_offset = batch.next_offset
        self.producer_id = batch.producer_id
        self.is_transactional = batch.is_transactional
        self.is_control_batch = False
        self._records = records

    def validate_crc(self) -> bool:
        """Return ``True``, because ``Batches`` has already checked the checksum."""
        return True

    def __iter__(self) -> Iterator["_Record"]:
        return self._records


class _Record(NamedTuple):
    """A record with the same attributes as aiokafka's record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_type: int = DefaultRecordBase.CREATE_TIME
    checksum: None = None


def _legacy(data: memoryview) -> LegacyRecordBatch:
    if data[_LEGACY_CODEC_AT] & DefaultRecordBase.CODEC_MASK:
        raise UnsupportedCodecError("a compressed record of Kafka before 0.11")
    return LegacyRecordBatch(data, data[_MAGIC_AT])


def _stand_in(batch: Any, data: memoryview, reason: Reason, why: str, first: int) -> _Record:
    """Return a record that represents a batch's unread records, at the batch's last offset."""
    last = batch.next_offset - 1
    sentence = f"{why} ({len(data)} bytes, SHA-256 {sha256(data[_MAGIC_AT:]).hexdigest()})"
    value = UnreadBatch.of(reason, first, last, sentence)
    return _Record(last, batch.max_timestamp, None, value, [])


def _records(batch: Any, data: memoryview, body: bytes | memoryview) -> Iterator[_Record]:
    """Yield a batch's records; an unreadable record and all later records become one record."""
    at, first_unread = 0, batch.base_offset
    try:
        for _ in range(_HEADER.unpack_from(data)[_COUNT_IN_HEADER]):
            record, at = _record(batch, body, at)
            first_unread = record.offset + 1
            yield record
        rest = len(body) - at
        why = f"has {rest} bytes after its last record" if rest else ""
    except (ValueError, IndexError) as error:
        why = f"can't be read: {error}"
    if why:
        yield _stand_in(batch, data, Reason.BATCH_UNREADABLE, why, first_unread)


def _record(batch: Any, body: bytes | memoryview, at: int) -> tuple[_Record, int]:
    """Read the record that begins at ``at``; return the record and the index of its end."""
    length, at = read_varint(body, at)
    end = at + length
    if not at < end <= len(body):
        raise ValueError(f"a record of {length} bytes at {at} of {len(body)}")
    # A record has one byte of attributes, which Kafka does not use.
    timestamp_delta, at = read_varint(body, at + 1)
    offset_delta, at = read_varint(body, at)
    if not 0 <= offset_delta <= batch.last_offset_delta:
        raise ValueError(f"offset {offset_delta} of a batch of {batch.last_offset_delta + 1}")
    key, at = _text(body, at, end)
    value, at = _text(body, at, end)
    headers = _headers(body, at, end)
    timestamp = batch.first_timestamp + timestamp_delta
    if batch.timestamp_type == DefaultRecordBase.LOG_APPEND_TIME:
        timestamp = batch.max_timestamp
    offset = batch.base_offset + offset_delta
    return _Record(offset, timestamp, key, value, headers, batch.timestamp_type), end


def _text(body: bytes | memoryview, at: int, end: int) -> tuple[bytes | None, int]:
    length, at = read_varint(body, at)
    if length < 0:
        return None, at
    if length > end - at:
        raise ValueError(f"{length} bytes, and only {end - at} are left")
    return bytes(body[at : at + length]), at + length


def _headers(body: bytes | memoryview, at: int, end: int) -> list[tuple[str, bytes | None]]:
    """Return at most ``MAX_HEADERS`` headers of a record; no record needs more."""
    count, at = read_varint(body, at)
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(min(count, MAX_HEADERS)):
        name, at = _text(body, at, end)
        value, at = _text(body, at, end)
        headers.append(((name or b"").decode(errors="backslashreplace"), value))
    if count < 0 or (count <= MAX_HEADERS and at != end):
        raise ValueError(f"{end - at} bytes after {count} headers")
    return headers
