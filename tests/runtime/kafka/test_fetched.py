"""A fetch returns the written records; one record replaces the unreadable records of a batch."""

import gzip
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from ledger.rejections import Reason
from ledger.trust import MAX_HEADERS
from ledger.unread import UnreadBatch
from runtime.kafka import connection  # noqa: F401 - it makes every consumer read with a limit
from runtime.kafka.corrections import PartitionRecords
from runtime.kafka.fetched import MAX_UNPACKED_BYTES, Batches
from tests.record_batches import (
    HEADER,
    MIB,
    PACKERS,
    Headers,
    batch,
    bomb,
    packed_zeros,
    placed,
    with_body,
)


def fetched(data: bytes, start: int = 0, kind: Any = Batches) -> Any:
    """Return the records that a consumer reads from these bytes if it begins at ``start``."""
    tp = TopicPartition("topic", 3)
    of_kind = fetcher.PartitionRecords if kind is Batches else _OF_AIOKAFKA
    return of_kind(tp, kind(data), [], start, None, None, True, 0)


_OF_AIOKAFKA = PartitionRecords.__base__

texts = st.none() | st.binary(max_size=200)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
written = st.lists(
    st.tuples(texts, texts, st.lists(st.tuples(names, texts), max_size=4)), min_size=1, max_size=9
)


def test_every_consumer_of_this_process_reads_with_the_limit_on_unpacked_bytes():
    assert (fetcher.MemoryRecords, fetcher.PartitionRecords) == (Batches, PartitionRecords)


@given(st.lists(written, min_size=1, max_size=4), st.integers(0, 4), st.integers(0, 20))
def test_packed_and_unpacked_records_are_read_as_aiokafka_reads_them(batches, codec, start):
    data, at = b"", 0
    for records in batches:
        data += batch(*records, at=at, codec=codec)
        at += len(records)
    # A broker's answer begins with the batch that contains the requested offset.
    start = min(start, len(batches[0]) - 1)
    expected = [*fetched(data, start, MemoryRecords)]
    assert [*fetched(data, start)] == expected
    assert [each.offset for each in expected] == list(range(start, at))


@given(st.lists(written, min_size=1, max_size=3))
def test_a_batch_that_the_broker_truncated_is_left_for_the_next_fetch(batches):
    whole = b"".join(batch(*records, at=0) for records in batches[:-1])
    for cut in (1, 30, 61, 65):
        data = whole + batch(*batches[-1])[:cut]
        assert [*fetched(data)] == [*fetched(whole)]
        assert Batches(data).size_in_bytes() == len(data)


def test_a_batch_that_unpacks_to_too_many_bytes_is_read_as_one_record_at_its_last_offset():
    ordinary = batch((b"k", b"v", []))
    many = with_body(batch(*[(b"", b"", [])] * 5, at=1), packed_zeros(300 * MIB))
    (before, unread) = fetched(ordinary + many)
    assert (before.offset, before.value) == (0, b"v")
    assert (unread.offset, unread.key, unread.timestamp) == (5, None, 1004)
    assert isinstance(unread.value, UnreadBatch)
    assert (unread.value.reason, unread.value.first_offset) == (Reason.BATCH_TOO_LARGE, 1)
    assert unread.value.startswith(
        b"the batch of offsets 1 to 5 unpacks to more than 16777216 bytes (%d bytes, SHA-256 "
        % len(many)
    )
    # A reader that starts within the batch gets the same record.
    assert [each.value for each in fetched(many, start=3)] == [unread.value]
    (unread,) = fetched(bomb(300 * MIB))
    assert unread.value.reason is Reason.BATCH_TOO_LARGE


@pytest.mark.parametrize("codec", PACKERS)
def test_the_limit_on_unpacked_bytes_applies_to_every_codec(codec):
    (unread,) = fetched(bomb(64 * MIB, codec=codec))
    assert unread.value.reason is Reason.BATCH_TOO_LARGE
    (whole,) = fetched(bomb(MIB, codec=codec))
    assert (whole.key, whole.value, whole.headers) == (b"k", bytes(MIB), ())


def test_a_batch_that_exceeds_the_limit_of_a_fetch_is_fetched_again():
    large = batch((b"k", bytes(9 * MIB), []), codec=1)
    data = large + placed(large, 1) + placed(large, 2)
    reading = fetched(data)
    assert [each.offset for each in reading] == [0, 1]
    assert reading.next_fetch_offset == 2
    assert [each.offset for each in fetched(data[len(large) * 2 :], start=2)] == [2]


def test_a_batch_of_the_largest_allowed_size_is_read():
    (record,) = fetched(batch((b"k", bytes(MAX_UNPACKED_BYTES - 100), []), codec=1))
    assert len(record.value) == MAX_UNPACKED_BYTES - 100


@pytest.mark.parametrize("codec", [0, 1])
def test_a_header_name_that_is_not_utf_8_is_read_with_escaped_bytes(codec):
    first, second = (b"k", b"v", [("ok", b"1")]), (b"k", b"v", [("hx", b"2"), ("h", None)])
    plain = batch(first, second, first, at=7)
    broken = placed(plain.replace(b"hx", b"\xff\xfe"), 7)
    if codec:
        broken = with_body(broken, gzip.compress(broken[HEADER.size :]))
    records = [*fetched(broken, start=7)]
    assert [(each.offset, each.value) for each in records] == [(7, b"v"), (8, b"v"), (9, b"v")]
    assert records[1].headers == (("\\xff\\xfe", b"2"), ("h", None))


def test_if_a_record_has_too_many_headers_only_the_first_headers_are_read():
    headers: Headers = [(f"{n:x}", b"") for n in range(300_000)]
    data = batch((b"k", b"v", headers), (b"k", b"v", headers[:MAX_HEADERS]), (b"k", b"v", []))
    assert len(data) > MIB
    assert [each.headers for each in fetched(data)] == [
        tuple(headers[:MAX_HEADERS]),
        tuple(headers[:MAX_HEADERS]),
        (),
    ]


@given(st.binary(max_size=80), st.sampled_from([0, 1]))
def test_bytes_that_are_not_records_become_one_record(body, codec):
    plain = batch(*[(b"k", b"v", [])] * 3, at=4)
    data = with_body(plain, gzip.compress(body) if codec else body, codec)
    after = batch((b"k", b"after", []), at=7)
    *read, unread, last = fetched(data + after, start=4)
    assert (last.offset, last.value) == (7, b"after")
    assert isinstance(unread.value, UnreadBatch)
    assert unread.offset == 6
    assert unread.value.reason is Reason.BATCH_UNREADABLE
    assert len(read) <= 3


def test_one_record_replaces_all_records_from_the_first_unreadable_record_of_a_batch():
    plain = batch(*[(b"k", b"v", [])] * 3, at=4)
    records = plain[HEADER.size :]
    size = len(records) // 3
    data = with_body(plain, records[:size] + b"\x02" + records[size + 1 :], codec=0)
    first, unread = fetched(data, start=4)
    assert (first.offset, unread.offset, unread.value.first_offset) == (4, 6, 5)
    assert [each.value for each in fetched(data, start=5)] == [unread.value]


@pytest.mark.parametrize("codec", [0, 1])
def test_a_batch_with_a_wrong_checksum_causes_an_error_that_names_its_offset(codec):
    good = batch((b"k", b"v", []))
    damaged = bytearray(batch((b"k", b"some text", []), (b"k", b"v", []), at=1, codec=codec))
    damaged[-3] ^= 1
    reading = fetched(good + bytes(damaged))
    assert next(reading).value == b"v"
    with pytest.raises(CorruptRecordException, match=r"topic\[3\] is damaged at offset 1: "):
        next(reading)


def test_a_batch_of_an_impossible_length_causes_an_error_that_names_its_offset():
    good = batch((b"k", b"v", []))
    for length in (-(2**31), -1, 0, 20):
        data = good + bytes(8) + length.to_bytes(4, "big", signed=True) + b"\x02" * 40
        reading = fetched(data)
        assert next(reading).value == b"v"
        with pytest.raises(CorruptRecordException, match=r"topic\[3\] is damaged at offset 1"):
            next(reading)


def test_records_in_the_format_before_kafka_0_11_are_read_unless_they_are_packed():
    def old(codec: int) -> bytes:
        builder = LegacyRecordBatchBuilder(1, codec, 1 << 20)
        builder.append(0, 1000, b"k", b"v")
        return bytes(builder.build())

    assert [each.value for each in fetched(old(0))] == [b"v"]
    said = r"topic\[3\] is damaged at offset 0: .*a compressed record of Kafka before 0.11"
    with pytest.raises(CorruptRecordException, match=said):
        next(fetched(old(1)))
