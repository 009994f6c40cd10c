"""`TopicReader` reads records by offset or by key; long reads do not delay other reads."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from processors.rejections import Rejections
from processors.settings import WorkerSettings
from runtime.kafka import topic_reader
from runtime.kafka.batches import OutRecord, send_to_partition
from runtime.kafka.topic_reader import LogUnreadableError, TooMuchReadError, TopicReader
from runtime.kafka.topics import ensure_topics
from tests.fakes import until
from tests.kafka.harness import PARTITIONS, environment, names_of, producer
from tests.kafka.topics import create, delete

pytestmark = pytest.mark.timeout(120)

RECORDS = 600


@pytest.fixture
async def log(kafka, tmp_path) -> AsyncIterator[tuple[TopicReader, str]]:
    """Fill partition 1 of a log; every third record has the key ``third``."""
    env = environment(kafka.bootstrap, tmp_path)
    settings, topic = WorkerSettings.from_environment(env), names_of(env).webhooks
    await ensure_topics(settings)
    records = [OutRecord(key_of(n), b"%d" % n) for n in range(RECORDS)]
    async with producer(kafka.bootstrap) as client:
        await send_to_partition(client, topic, 1, records)
    reader = TopicReader(settings)
    yield reader, topic
    await reader.close()


def key_of(offset: int) -> bytes:
    return b"third" if offset % 3 == 0 else b"other"


def keys(*offsets: int) -> dict[tuple[int, int], bytes]:
    """Return the key at each of these offsets of the filled partition."""
    return {(1, offset): key_of(offset) for offset in offsets}


async def test_nearby_offsets_are_read_as_one_range_and_no_other_record_is_returned(
    log, monkeypatch
):
    reader, topic = log
    sought: list[int] = []
    seek = AIOKafkaConsumer.seek

    def counted(client: Any, tp: Any, offset: int) -> None:
        sought.append(offset)
        seek(client, tp, offset)

    monkeypatch.setattr(AIOKafkaConsumer, "seek", counted)
    offsets = [*range(3, 200, 7), 580, 599]
    found = await reader.at(topic, keys(*reversed(offsets)))
    assert [int(record.value or b"") for record in found] == offsets
    assert sought == [3, 580]


async def test_an_offset_without_a_record_is_an_error(log):
    reader, topic = log
    with pytest.raises(LogUnreadableError):
        await reader.at(topic, keys(0, RECORDS + 5))
    assert len(await reader.at(topic, keys(0))) == 1


async def test_an_offset_with_a_different_record_is_an_error_that_names_the_offset(log):
    """The offset no longer has the record that was folded.

    This happens if a log loses its last records and then receives new records.
    """
    reader, topic = log
    with pytest.raises(LogUnreadableError, match=f"{topic} no longer has the folded record at 1/7"):
        await reader.at(topic, keys(3) | {(1, 7): b"lost"})


async def test_more_bytes_than_one_answer_may_hold_are_an_error(log, monkeypatch):
    reader, topic = log
    monkeypatch.setattr(topic_reader, "_MOST_BYTES", 300)
    assert len(await reader.at(topic, keys(*range(100, 200)))) == 100
    with pytest.raises(TooMuchReadError, match="more than the 300 bytes"):
        await reader.at(topic, keys(*range(100, 201)))


async def test_records_are_handed_over_one_by_one_in_the_order_of_the_log(log):
    reader, topic = log
    offsets: list[int] = []
    await reader.through(TopicPartition(topic, 1), 5, 400, lambda each: offsets.append(each.offset))
    assert offsets == list(range(5, 400))


async def test_a_range_can_be_read_for_one_key(log):
    reader, topic = log
    found = await reader.between(topic, {1: 100}, {1: 200}, b"third")
    assert [record.offset for record in found] == list(range(102, 200, 3))


async def test_two_long_reads_do_not_delay_another_read(log):
    reader, topic = log
    released = asyncio.Event()
    slow = [
        asyncio.create_task(reader._ask(topic, lambda _client: released.wait())) for _ in range(2)
    ]
    found = await reader.at(topic, keys(5))
    assert [record.offset for record in found] == [5]
    assert not any(each.done() for each in slow)
    released.set()
    await asyncio.gather(*slow)


async def test_closing_a_reader_ends_the_reads_in_progress(log):
    reader, topic = log
    # The range ends at an offset that does not exist yet, so the read does not end by itself.
    reading = asyncio.create_task(reader.between(topic, {1: 0}, {1: RECORDS + 1}))
    await until(lambda: reader._clients)
    await reader.close()
    done, _ = await asyncio.wait([reading], timeout=5)
    assert done
    assert isinstance(reading.exception(), LogUnreadableError)


async def test_a_closed_reader_starts_no_new_client(log):
    reader, topic = log
    assert (await reader.ends(topic, PARTITIONS))[1] == RECORDS
    await reader.close()
    with pytest.raises(LogUnreadableError):
        await reader.ends(topic, PARTITIONS)
    assert not reader._clients


async def test_if_the_topic_of_rejected_records_is_created_again_it_is_read_from_its_start(
    kafka, tmp_path
):
    """New records have the same offsets as old records that the reader has already read."""
    env = environment(kafka.bootstrap, tmp_path)
    settings, names = WorkerSettings.from_environment(env), names_of(env)
    await ensure_topics(settings)
    reader = TopicReader(settings)
    rejected = Rejections(reader, names, PARTITIONS)

    async def write(keys: set[bytes]) -> None:
        async with producer(kafka.bootstrap) as client:
            headers = [("reason", b"malformed_json"), ("source-topic", b"http")]
            records = [OutRecord(key, key, headers) for key in sorted(keys)]
            await send_to_partition(client, names.rejected, 1, records)

    async def known() -> set[bytes]:
        return {item.key for item in (await rejected.now()).ordered()}

    await write({b"lost 1", b"lost 2"})
    assert await known() == {b"lost 1", b"lost 2"}
    await delete(env, names.rejected)
    await create(env, names.rejected)
    new = {b"new %d" % n for n in range(5)}
    await write(new)
    assert await known() == new
    await reader.close()
