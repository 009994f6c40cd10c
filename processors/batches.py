"""Record batches: many records to Kafka with one future per batch.

In: records by topic. Out: the last offset written in each partition, once every broker that must
have them acknowledged. Never: a return before that, or a record that is dropped in silence.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import RecordMetadata

from ledger.topics import MAX_RECORD_BYTES
from runtime.partitions import partition_for

# A broker's restart takes seconds, and the client retries meanwhile. After this the worker gives
# up: it stops with an error, and does the chunk again after its restart.
ACKNOWLEDGED_WITHIN_S: Final = 60.0


class RecordTooLargeError(ValueError):
    """A state or document has grown beyond what a record may hold; the message names its key."""


class BatchProducer(Protocol):
    """What takes batches: a ``Writer``, or aiokafka's own producer."""

    def create_batch(self) -> BatchBuilder:
        """Return an empty batch."""

    async def send_batch(
        self, batch: BatchBuilder, topic: str, *, partition: int
    ) -> Awaitable[RecordMetadata]:
        """Begin to write a batch; the future holds when it is acknowledged."""


class OutRecord(NamedTuple):
    """A record to write: ``value`` is ``None`` for a tombstone."""

    key: bytes
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    # ``None`` is the time at which it is written.
    timestamp_ms: int | None = None


class Writable(Protocol):
    """Anything that can be written to a given partition; a record of other hands may lack a key."""

    @property
    def key(self) -> bytes | None:
        """What decides the partition, for whoever writes by key."""

    @property
    def value(self) -> bytes | None:
        """The value; ``None`` is a tombstone."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """What stands beside the value."""

    @property
    def timestamp_ms(self) -> int | None:
        """When it came, if not just now."""


async def send_by_key(
    producer: BatchProducer, topic: str, records: Iterable[OutRecord], partitions: int
) -> None:
    """Write records to the partitions of their keys, in order within each."""
    by_partition: dict[int, list[OutRecord]] = defaultdict(list)
    for record in records:
        by_partition[partition_for(record.key, partitions)].append(record)
    await asyncio.gather(
        *(
            send_to_partition(producer, topic, partition, group)
            for partition, group in by_partition.items()
        )
    )


async def send_to_partition(
    producer: BatchProducer, topic: str, partition: int, records: Iterable[Writable]
) -> int:
    """Write records to one partition in order; return the offset of the last, acknowledged."""
    written = list(records)
    try:
        async with asyncio.timeout(ACKNOWLEDGED_WITHIN_S):
            return await _send(producer, topic, partition, written)
    except MessageSizeTooLargeError as error:
        largest = max(written, key=lambda record: len(record.value or b""))
        raise RecordTooLargeError(
            f"{topic} takes {MAX_RECORD_BYTES} bytes a record, and the one with key "
            f"{largest.key!r:.80} has {len(largest.value or b'')}"
        ) from error


async def _send(
    producer: BatchProducer, topic: str, partition: int, records: Iterable[Writable]
) -> int:
    futures = []
    batch = producer.create_batch()
    for record in records:
        if not _append(batch, record):
            futures.append(await producer.send_batch(batch, topic, partition=partition))
            # The first record of a batch always has room.
            batch = producer.create_batch()
            _append(batch, record)
    count: int = batch.record_count()
    futures.append(await producer.send_batch(batch, topic, partition=partition))
    acknowledged: list[RecordMetadata] = await asyncio.gather(*futures)
    return int(acknowledged[-1].offset) + count - 1


def _append(batch: BatchBuilder, record: Writable) -> bool:
    appended = batch.append(
        key=record.key,
        value=record.value,
        timestamp=record.timestamp_ms,
        headers=list(record.headers),
    )
    return appended is not None
