"""Batches keep records in order, are cut at the size limit, and lose no record."""

from collections import defaultdict
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import ConsumerRecord

from cli.kafka.broker import EmbeddedKafka
from ledger.topics import MAX_RECORD_BYTES
from runtime.kafka import batches as batches_module
from runtime.kafka.batches import (
    BatchRefusedError,
    OutRecord,
    PartitionBatches,
    send,
    send_by_key,
    send_to_partition,
)
from runtime.kafka.partitions import partition_for
from runtime.kafka.topics import TopicSettings, ensure_topics
from tests.kafka.harness import PARTITIONS, environment, names_of, producer, writer
from tests.kafka.topics import alter

# The harness's producer cuts batches at 256 KiB.
SIXTH_OF_A_BATCH = b"x" * (256 * 1024 // 6)


@pytest.fixture
async def topic(kafka: EmbeddedKafka, tmp_path: Path) -> str:
    env = environment(kafka.bootstrap, tmp_path)
    await ensure_topics(TopicSettings.from_environment(env))
    return names_of(env).entries


async def read(kafka: EmbeddedKafka, topic: str, partition: int) -> list[ConsumerRecord]:
    tp = TopicPartition(topic, partition)
    records: list[ConsumerRecord] = []
    async with AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap, max_partition_fetch_bytes=MAX_RECORD_BYTES
    ) as consumer:
        consumer.assign([tp])
        await consumer.seek_to_beginning(tp)
        end = (await consumer.end_offsets([tp]))[tp]
        while await consumer.position(tp) < end:
            for fetched in (await consumer.getmany(timeout_ms=500)).values():
                records.extend(fetched)
    return records


async def test_records_that_do_not_fit_in_one_batch_are_sent_in_several_batches_and_stay_in_order(
    kafka, topic
):
    batches = []

    class Counted(AIOKafkaProducer):
        async def send_batch(self, batch, topic, *, partition):
            batches.append(batch.record_count())
            return await super().send_batch(batch, topic, partition=partition)

    records = [OutRecord(b"%d" % n, SIXTH_OF_A_BATCH) for n in range(20)]
    client = Counted(bootstrap_servers=kafka.bootstrap, max_batch_size=256 * 1024)
    async with client:
        assert (await send_to_partition(client, topic, 2, records)).last == 19
        assert (await send_to_partition(client, topic, 2, records[:1])).last == 20
    assert batches == [5, 5, 5, 5, 1]
    kept = await read(kafka, topic, 2)
    assert [(record.offset, record.key) for record in kept] == [
        (n, b"%d" % (n % 20)) for n in range(21)
    ]
    assert {record.value for record in kept} == {SIXTH_OF_A_BATCH}


async def test_values_and_tombstones_and_headers_are_kept_unchanged(kafka, topic):
    records = [
        OutRecord(b"a", b"", (("reason", b"x"), ("reason", b"\xff"))),
        OutRecord(b"b", None),
        OutRecord(b"", b"value"),
    ]
    async with producer(kafka.bootstrap) as client:
        await send_to_partition(client, topic, 0, records)
    kept = await read(kafka, topic, 0)
    assert [OutRecord(r.key, r.value, r.headers) for r in kept] == records


async def test_every_record_goes_to_the_partition_of_its_key_in_order(kafka, topic):
    records = [OutRecord(b"key %d" % (n % 50), b"%d" % n) for n in range(500)]
    async with producer(kafka.bootstrap) as client:
        await send_by_key(client, topic, records, PARTITIONS)
    expected: dict[int, list[tuple[bytes, bytes | None]]] = defaultdict(list)
    for record in records:
        expected[partition_for(record.key, PARTITIONS)].append((record.key, record.value))
    for partition in range(PARTITIONS):
        kept = [(r.key, r.value) for r in await read(kafka, topic, partition)]
        assert kept == expected[partition]


async def test_an_empty_list_of_records_can_be_sent_by_key(kafka, topic):
    async with producer(kafka.bootstrap) as client:
        await send_by_key(client, topic, [], PARTITIONS)


async def test_a_record_larger_than_a_batch_gets_a_batch_of_its_own(kafka, topic):
    large = b"y" * (MAX_RECORD_BYTES - 1024)
    records = [OutRecord(b"1", b"small"), OutRecord(b"2", large), OutRecord(b"3", b"small")]
    async with producer(kafka.bootstrap) as client:
        assert (await send_to_partition(client, topic, 0, records)).last == 2
    assert [record.value for record in await read(kafka, topic, 0)] == [b"small", large, b"small"]


async def test_a_record_that_the_topic_refuses_raises_an_error_and_is_not_dropped_silently(
    kafka, topic
):
    records = [OutRecord(b"1", b"small"), OutRecord(b"2", b"z" * (MAX_RECORD_BYTES + 1))]
    async with producer(kafka.bootstrap) as client:
        with pytest.raises(BatchRefusedError, match=rf"{topic} .*1 records, first key b'2'"):
            await send_to_partition(client, topic, 0, records)
    assert b"2" not in {record.key for record in await read(kafka, topic, 0)}


async def test_records_acknowledged_before_a_refused_batch_are_not_written_again(kafka, topic):
    """A changelog's records must have contiguous offsets, even after the topic refused a batch."""
    await alter({"LEDGER_KAFKA_BOOTSTRAP": kafka.bootstrap}, topic, max_message_bytes="900")
    sizes = (400, 700, 150, 700, 100)
    records = [OutRecord(b"%d" % n, b"x" * size) for n, size in enumerate(sizes)]
    tp = TopicPartition(topic, 0)
    async with writer(kafka.bootstrap, topic) as first:
        first.batch_bytes = 1000
        batches = PartitionBatches(first.create_batch)
        for record in records:
            batches.append(record)
        with pytest.raises(BatchRefusedError, match="2 records, first key b'1'"):
            await send(first, {tp: batches})
    async with writer(kafka.bootstrap, topic) as second:
        second.batch_bytes = 900
        batches.cut_again(second.create_batch)
        written = (await send(second, {tp: batches}))[tp]
    kept = await read(kafka, topic, 0)
    assert [(record.offset, record.key) for record in kept] == [(n, b"%d" % n) for n in range(5)]
    assert (written.first, written.last, written.is_contiguous) == (0, 4, True)


async def test_the_error_for_a_late_acknowledgement_names_the_time_limit(kafka, topic, monkeypatch):
    async with producer(kafka.bootstrap) as client:
        await send_to_partition(client, topic, 0, [OutRecord(b"1", b"there")])
        monkeypatch.setattr(batches_module, "ACKNOWLEDGED_WITHIN_S", 1.0)
        kafka.pause()
        try:
            with pytest.raises(TimeoutError, match="not acknowledge within 1 s; look at the bro"):
                await send_to_partition(client, topic, 0, [OutRecord(b"2", b"late")])
        finally:
            kafka.resume()
