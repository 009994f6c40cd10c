"""Writes records to Kafka in batches, with one future per batch.

Input: records by topic. Output: the offsets of each partition's records, once every in-sync replica
has the records. Invariant: no record is dropped silently.

If a topic refuses a batch because of the batch's size, an error is raised. ``PartitionBatches``
still has the records that are not acknowledged, so a different writer can write them in smaller
batches.
"""

import asyncio
from collections.abc import (
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from itertools import zip_longest
from typing import Final, Protocol

import msgspec
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    RecordListTooLargeError,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import RecordMetadata, TopicPartition

from runtime.kafka.internals import Append, appender, content, seal
from runtime.kafka.partitions import partition_for

# A broker's restart takes seconds, and the client retries meanwhile. If Kafka does not acknowledge
# a record within this time, the worker stops with an error. After its restart, the worker folds the
# chunk again.
ACKNOWLEDGED_WITHIN_S: Final = 60.0
_NO_HEADERS: Final[list[tuple[str, bytes | None]]] = []
_LOG_APPEND_TIME: Final = 1
TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)
"""The errors of a topic that refuses a batch for its size."""


class LostOutputsError(Exception):
    """A topic of this worker's outputs has lost acknowledged records; the text names the topic."""


class BatchRefusedError(KafkaError):  # type: ignore[misc]
    """A topic refused a batch for its size."""

    def __init__(self, topic: str, batch: BatchBuilder) -> None:
        self.topic = topic
        self.records = batch.record_count()
        self.size_bytes = batch.size()
        self.first_key = next(_records_in(batch)).key
        super().__init__(
            f"topic {topic} refuses a batch of {self.size_bytes} bytes ({self.records} records, "
            f"first key {self.first_key!r:.80})"
        )


class Written(msgspec.Struct, frozen=True, gc=False):
    """The first and the last offset of ``count`` records in one partition.

    ``keeps_times`` is false if the topic has replaced a record's time.
    """

    first: int
    last: int
    count: int
    keeps_times: bool = True

    @property
    def is_contiguous(self) -> bool:
        """Whether the records have consecutive offsets."""
        return self.last - self.first + 1 == self.count

    def then(self, batch: "Written") -> "Written":
        """Return one range with these records and the records of the partition's next batch."""
        keeps_times = self.keeps_times and batch.keeps_times
        return Written(self.first, batch.last, self.count + batch.count, keeps_times)


class BatchProducer(Protocol):
    """A ``Writer``, or aiokafka's own producer."""

    def create_batch(self) -> BatchBuilder:
        """Return an empty batch."""

    async def send_batch(
        self, batch: BatchBuilder, topic: str, *, partition: int
    ) -> asyncio.Future[RecordMetadata]:
        """Begin to write a batch; the future is done once the batch is acknowledged."""


class OutRecord(msgspec.Struct, frozen=True, gc=False):
    """A record to write: ``value`` is ``None`` for a tombstone."""

    key: bytes
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    # ``None`` means the time at which the record is written.
    timestamp_ms: int | None = None


class Writable(Protocol):
    """A record for a given partition; a record that another program wrote may lack a key."""

    @property
    def key(self) -> bytes | None:
        """The key, which decides the partition if records are written by key."""

    @property
    def value(self) -> bytes | None:
        """The value; ``None`` is a tombstone."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """The names and values of the headers."""

    @property
    def timestamp_ms(self) -> int | None:
        """The time of the record; ``None`` for the time at which it is written."""


class PartitionBatches:
    """The records of one partition, in their order, in one or more batches.

    A record is copied into its batch at once, so the memory of the original can be freed.
    """

    __slots__ = ("_append", "_batches", "_count", "_create", "written")

    def __init__(self, create: Callable[[], BatchBuilder]) -> None:
        self._create = create
        self._append: Append | None = None
        self._count = 0
        # The batches that are not acknowledged.
        self._batches: list[BatchBuilder] = []
        self.written: Written | None = None

    def append(self, record: Writable) -> None:
        """Add a record after the others."""
        self.add(record.key, record.value, record.headers, record.timestamp_ms)

    def add(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        timestamp_ms: int | None = None,
    ) -> None:
        """Add the fields of a record after the others; see ``OutRecord``."""
        written = list(headers) if headers else _NO_HEADERS
        append = self._append
        if append is None or append(self._count, timestamp_ms, key, value, written) is None:
            # An empty batch always has room for a record.
            self._begin()(0, timestamp_ms, key, value, written)
        self._count += 1

    def close(self) -> list[BatchBuilder]:
        """Return the batches that are not acknowledged; no record may be added afterwards."""
        self._seal()
        return list(self._batches)

    def acknowledge(self, answer: RecordMetadata) -> None:
        """Record the answer to the first batch that is not acknowledged yet."""
        first, count = int(answer.offset), self._batches.pop(0).record_count()
        keeps_times = answer.timestamp_type != _LOG_APPEND_TIME
        batch = Written(first, first + count - 1, count, keeps_times)
        self.written = self.written.then(batch) if self.written else batch

    def cut_again(self, create: Callable[[], BatchBuilder]) -> None:
        """Copy the unacknowledged records into batches of a different writer."""
        batches, self._batches = self.close(), []
        self._create, self._append = create, None
        for batch in batches:
            for record in _records_in(batch):
                self.append(record)

    def _begin(self) -> Append:
        """Begin a batch, and return the function that appends to it."""
        self._seal()
        self._batches.append(self._create())
        self._append = append = appender(self._batches[-1])
        self._count = 0
        return append

    def _seal(self) -> None:
        if self._batches:
            seal(self._batches[-1], self._count)


async def send_by_key(
    producer: BatchProducer, topic: str, records: Iterable[OutRecord], partitions: int
) -> None:
    """Write records to the partitions of their keys, keeping the order within each partition."""
    outputs: dict[TopicPartition, PartitionBatches] = {}
    by_key(outputs, producer, topic, records, partitions)
    await send(producer, outputs)


async def send_to_partition(
    producer: BatchProducer, topic: str, partition: int, records: Iterable[Writable]
) -> Written:
    """Write records to one partition, in this order; return their offsets, once acknowledged."""
    batches = PartitionBatches(producer.create_batch)
    for record in records:
        batches.append(record)
    tp = TopicPartition(topic, partition)
    return (await send(producer, {tp: batches}))[tp]


def by_key(
    outputs: dict[TopicPartition, PartitionBatches],
    producer: BatchProducer,
    topic: str,
    records: Iterable[OutRecord],
    partitions: int,
) -> None:
    """Add a topic's records to the outputs, each to the partition of its key."""
    # ``adds`` is keyed by the number of the partition, because creating a ``TopicPartition`` for
    # each record would take longer than adding the record.
    adds: dict[int, Callable[..., None]] = {}
    for record in records:
        key = record.key
        partition = partition_for(key, partitions)
        add = adds.get(partition)
        if add is None:
            batches = PartitionBatches(producer.create_batch)
            batches = outputs.setdefault(TopicPartition(topic, partition), batches)
            add = adds[partition] = batches.add
        add(key, record.value, record.headers, record.timestamp_ms)


async def send(
    producer: BatchProducer, outputs: Mapping[TopicPartition, PartitionBatches]
) -> dict[TopicPartition, Written]:
    """Write batches, in order within each partition; return each partition's offsets.

    The first batches of all partitions are sent together, and then the second batches. No batch has
    a task or a timer of its own. Raises ``BatchRefusedError`` if a batch is too large; the later
    batches of that partition then count as not acknowledged, so that they are written again in
    order.
    """
    begun: list[tuple[TopicPartition, BatchBuilder]] = []
    refused: dict[TopicPartition, BatchBuilder] = {}
    async with _acknowledged_in_time():
        ended = await asyncio.gather(
            *await _begin(producer, outputs, begun), return_exceptions=True
        )
    for (tp, batch), written in zip(begun, ended, strict=True):
        if isinstance(written, TOO_LARGE):
            refused.setdefault(tp, batch)
        elif tp in refused:
            # An earlier batch of the partition was refused, so this batch counts as not
            # acknowledged, even if the broker has accepted this batch.
            continue
        elif isinstance(written, OutOfOrderSequenceNumber):
            raise lost_output(tp) from written
        elif isinstance(written, BaseException):
            raise written
        else:
            outputs[tp].acknowledge(written)
    for tp, batch in refused.items():
        raise BatchRefusedError(tp.topic, batch)
    return {tp: batches.written for tp, batches in outputs.items() if batches.written}


async def _begin(
    producer: BatchProducer,
    outputs: Mapping[TopicPartition, PartitionBatches],
    begun: list[tuple[TopicPartition, BatchBuilder]],
) -> list[asyncio.Future[RecordMetadata]]:
    """Begin to write all batches, and note them in ``begun``; return their futures."""
    futures: list[asyncio.Future[RecordMetadata]] = []
    try:
        for batches in zip_longest(*(batches.close() for batches in outputs.values())):
            for tp, batch in zip(outputs, batches, strict=True):
                if batch is not None:
                    sent = await producer.send_batch(batch, tp.topic, partition=tp.partition)
                    futures.append(sent)
                    begun.append((tp, batch))
    except BaseException:
        # Nobody reads these futures any more, so their errors must not be reported as unread.
        for future in futures:
            future.cancel()
        raise
    return futures


def _records_in(batch: BatchBuilder) -> Iterator[OutRecord]:
    """Yield the records of a batch that was sent."""
    records = MemoryRecords(content(batch))
    while (found := records.next_batch()) is not None:
        for each in found:
            yield OutRecord(each.key, each.value, each.headers, each.timestamp)


@asynccontextmanager
async def _acknowledged_in_time() -> AsyncIterator[None]:
    """Limit the time of a ``with`` block; a ``TimeoutError`` names the missing acknowledgement."""
    try:
        async with asyncio.timeout(ACKNOWLEDGED_WITHIN_S):
            yield
    except TimeoutError:
        text = f"Kafka did not acknowledge within {ACKNOWLEDGED_WITHIN_S:g} s; look at the brokers"
        raise TimeoutError(text) from None


def lost_output(tp: TopicPartition) -> LostOutputsError:
    """Return the error for a partition whose leader lacks a batch that it had acknowledged."""
    return LostOutputsError(
        f"{tp.topic}[{tp.partition}] has lost records that this worker wrote and Kafka had "
        "acknowledged. At its next start, the worker folds again the records whose results are "
        "missing from its tables; `plexy-ledger verify` lists the records that consumers miss, and "
        "`plexy-ledger rebuild` writes them again"
    )
