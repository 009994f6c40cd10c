"""Records of one event-loop turn share batches; a partition has at most one batch in flight."""

import asyncio
from collections import Counter

import pytest
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import RecordMetadata, TopicPartition

from ingest.appends import Appends, LogUnavailableError
from ingest.records import NewRecord
from ledger.records import Place
from runtime.kafka.partitions import partition_for
from tests.fakes import until

PARTITIONS = 4


def written(partition: int, offset: int) -> RecordMetadata:
    return RecordMetadata("log", partition, TopicPartition("log", partition), offset, 0, 0, 0)


class Producer:
    """A fake of aiokafka's producer that acknowledges or fails batches on demand."""

    def __init__(self, batch_bytes: int = 10_000) -> None:
        self.identities = 1
        self.batches: list[tuple[int, int, asyncio.Future]] = []
        self.ends: Counter[int] = Counter()
        self._batch_bytes = batch_bytes

    def create_batch_for(self, limit_bytes: int) -> BatchBuilder:
        return BatchBuilder(min(limit_bytes, self._batch_bytes), 0)

    def renew_identity(self) -> None:
        self.identities += 1

    async def send_batch(self, batch, topic, *, partition):
        assert topic == "log"
        future = asyncio.get_running_loop().create_future()
        self.batches.append((partition, batch.record_count(), future))
        return future

    @property
    def records(self) -> list[int]:
        """The number of records in each batch so far."""
        return [count for _, count, _ in self.batches]

    def refuse(self) -> None:
        """Refuse the batches in flight as too large, as a topic with a lowered limit does."""
        for _, _, future in self.batches:
            if not future.done():
                future.set_exception(MessageSizeTooLargeError())

    def acknowledge(self) -> None:
        for partition, count, future in self.batches:
            if not future.done():
                tp = TopicPartition("log", partition)
                future.set_result(
                    RecordMetadata("log", partition, tp, self.ends[partition], 0, 0, 0)
                )
                self.ends[partition] += count


class Lost(list):
    """A callback that records why the producer is no longer used."""

    def __call__(self, reason: str) -> None:
        self.append(reason)


def started(producer: Producer, limit_bytes: int = 1_000_000) -> tuple[Appends, Lost]:
    lost = Lost()
    return Appends(producer, PARTITIONS, {"log": limit_bytes}, lost), lost


def a_record(key: bytes = b"evt_1", size: int = 10) -> NewRecord:
    return NewRecord("log", key, b"x" * size, [("a-header", b"")], 1)


async def acknowledged(producer: Producer, kept: list[asyncio.Future]) -> list[Place]:
    done = sum(producer.records)
    await until(lambda: sum(producer.records) == done + len(kept))
    producer.acknowledge()
    return await asyncio.gather(*kept)


async def settled(producer: Producer, kept: list[asyncio.Future]) -> None:
    """Acknowledge batch after batch until the future of every record is done."""
    while not all(each.done() for each in kept):
        producer.acknowledge()
        await asyncio.sleep(0)
    await asyncio.gather(*kept)


def far_off() -> float:
    return asyncio.get_running_loop().time() + 60


async def test_the_records_of_one_event_loop_turn_form_one_batch_for_each_partition():
    producer = Producer()
    appends, _ = started(producer)
    keys = [b"evt_%d" % n for n in range(100)]
    kept = [appends.append(a_record(key), far_off()) for key in keys]
    await until(lambda: len(producer.batches) == PARTITIONS)
    expected = Counter(partition_for(key, PARTITIONS) for key in keys)
    assert {partition: count for partition, count, _ in producer.batches} == expected
    assert not any(each.done() for each in kept)
    producer.acknowledge()
    await asyncio.gather(*kept)


async def test_records_that_arrive_while_a_batch_is_in_flight_form_the_next_batch():
    producer = Producer()
    appends, _ = started(producer)
    first = appends.append(a_record(), far_off())
    await until(lambda: producer.records == [1])
    later = [appends.append(a_record(), far_off()) for _ in range(7)]
    await asyncio.sleep(0.01)
    assert producer.records == [1]
    producer.acknowledge()
    await first
    await until(lambda: producer.records == [1, 7])
    assert not any(each.done() for each in later)
    producer.acknowledge()
    await asyncio.gather(*later)


async def test_records_that_do_not_fit_join_the_next_batch_and_a_large_record_has_its_own_batch():
    producer = Producer(batch_bytes=1000)
    appends, _ = started(producer)
    kept = [appends.append(a_record(size=size), far_off()) for size in (400, 400, 400, 5000, 10)]
    await settled(producer, kept)
    assert producer.records == [2, 1, 1, 1]


async def test_a_batch_refused_for_its_size_is_resent_in_parts_under_a_new_producer_identity():
    producer = Producer()
    appends, lost = started(producer)
    kept = [appends.append(a_record(size=400), far_off()) for _ in range(4)]
    await until(lambda: producer.records == [4])
    producer.refuse()
    await until(lambda: producer.records == [4, 1])
    await settled(producer, kept)
    assert [each.result().offset for each in kept] == [0, 1, 2, 3]
    assert (producer.identities, lost) == (2, [])


async def test_a_record_that_is_too_large_fails_until_the_limit_is_raised_but_others_do_not_fail():
    producer = Producer()
    appends, lost = started(producer)
    large = appends.append(a_record(size=4000), far_off())
    await until(lambda: producer.records == [1])
    small = appends.append(a_record(), far_off())
    producer.refuse()
    with pytest.raises(LogUnavailableError, match=r"takes at most \d+ bytes, but this record has"):
        await large
    await settled(producer, [small])
    appends.bound({"log": 10_000})
    await settled(producer, [appends.append(a_record(size=4000), far_off())])
    assert (producer.records, lost) == ([1, 1, 1], [])


async def test_no_batch_is_larger_than_the_topic_allows():
    producer = Producer()
    appends, _ = started(producer, limit_bytes=1000)
    kept = [appends.append(a_record(size=400), far_off()) for _ in range(4)]
    too_large = appends.append(a_record(size=1000), far_off())
    await settled(producer, kept)
    assert producer.records == [2, 2]
    with pytest.raises(LogUnavailableError, match=r"--add-config max\.message\.bytes=10485760"):
        await too_large


async def test_all_records_and_all_later_appends_fail_if_kafka_does_not_acknowledge_in_time():
    producer = Producer()
    appends, lost = started(producer)
    now = asyncio.get_running_loop().time()
    in_flight = appends.append(a_record(), now + 60)
    await until(lambda: producer.records == [1])
    waiting = [appends.append(a_record(key), now + 0.05) for key in (b"evt_1", b"evt_other")]
    for each in (in_flight, *waiting, appends.append(a_record(), now + 60)):
        with pytest.raises(LogUnavailableError, match="did not acknowledge in time"):
            await each
    assert lost == ["Kafka did not acknowledge in time"]
    with pytest.raises(LogUnavailableError, match="did not acknowledge in time"):
        await appends.append(a_record(), now + 60)


async def test_the_deadline_of_a_record_has_no_effect_once_the_record_is_acknowledged():
    producer = Producer()
    appends, lost = started(producer)
    now = asyncio.get_running_loop().time()
    kept = appends.append(a_record(), now + 0.05)
    await until(lambda: producer.records == [1])
    producer.acknowledge()
    await kept
    later = appends.append(a_record(), now + 60)
    await asyncio.sleep(0.1)
    assert not later.done()
    producer.acknowledge()
    await later
    assert lost == []


async def test_each_append_returns_the_partition_and_offset_of_its_record():
    producer = Producer()
    appends, _ = started(producer)
    keys = [b"evt_%d" % n for n in range(20)]
    acks = []
    for some in (keys[:10], keys[10:]):
        acks += await acknowledged(producer, [appends.append(a_record(k), far_off()) for k in some])
    for partition in range(PARTITIONS):
        mine = [key for key in keys if partition_for(key, PARTITIONS) == partition]
        places = [acks[keys.index(key)] for key in mine]
        assert places == [Place(partition, offset) for offset in range(len(mine))]


@pytest.mark.parametrize(
    "end",
    [
        lambda batch: batch.set_exception(AssertionError()),
        lambda batch: batch.cancel(),
        lambda batch: batch.set_result(written(0, -1)),
    ],
)
async def test_the_records_of_a_batch_that_fails_or_is_dropped_are_never_acknowledged(end):
    producer = Producer()
    appends, lost = started(producer)
    kept = [appends.append(a_record(key), far_off()) for key in (b"evt_1", b"evt_other")]
    await until(lambda: producer.records == [1, 1])
    end(producer.batches[0][2])
    for each in kept:
        with pytest.raises(LogUnavailableError, match="Kafka failed"):
            await each
    assert len(lost) == 1
    # The acknowledgement of the other partition arrives later, when no record waits for it.
    producer.acknowledge()
    await asyncio.sleep(0.01)
    assert len(producer.batches) == 2


async def test_a_cancelled_append_does_not_affect_the_other_appends():
    producer = Producer()
    appends, lost = started(producer)
    gone, kept = [appends.append(a_record(), far_off()) for _ in range(2)]
    gone.cancel()
    await until(lambda: producer.records == [2])
    producer.acknowledge()
    await kept
    assert lost == []
