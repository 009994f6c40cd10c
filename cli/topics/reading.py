"""Read a topic from its beginning to its end as of now, and how far a group of workers is in it.

Input: Kafka's settings, a topic, and the name of a group. Output: the topic's records, or for each
partition its first offset, the committed offset and its end. A partition without a commit counts
from its beginning. Nothing here joins a consumer group, or waits for records to come.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from cli.errors import TopicMissingError
from runtime.kafka.connection import KafkaSettings
from runtime.kafka.topics import TopicsError, unreachable

_FETCH_MS: Final = 500
_ANSWER_WITHIN_MS: Final = 15_000


@asynccontextmanager
async def reading(
    settings: KafkaSettings, **consumer_options: object
) -> AsyncIterator[tuple[AIOKafkaAdminClient, AIOKafkaConsumer]]:
    """Connect two clients: topics from the one, records and log ends from the other.

    ``TopicsError`` if Kafka does not answer.
    """
    options = settings.client_options()
    admin = AIOKafkaAdminClient(**options, request_timeout_ms=_ANSWER_WITHIN_MS)
    try:
        await admin.start()
    except KafkaError as error:
        raise TopicsError(unreachable(settings, error)) from error
    try:
        # Only now: one that is never started complains when it is collected.
        consumer = AIOKafkaConsumer(**options, auto_offset_reset="earliest", **consumer_options)
        await consumer.start()
        # A consumer that is stopped before its own task has run once raises CancelledError
        # (aiokafka 0.14.0, NoGroupCoordinator), which would hide the error that ends the block.
        await asyncio.sleep(0)
        try:
            yield admin, consumer
        finally:
            await consumer.stop()
    finally:
        await admin.close()


async def partitions_of(admin: AIOKafkaAdminClient, topic: str) -> list[TopicPartition]:
    """Return a topic's partitions; ``TopicMissingError`` if there is no such topic."""
    (described,) = await admin.describe_topics([topic])
    if not described["partitions"]:
        # No partitions would look like no records.
        raise TopicMissingError(f"there is no topic {topic}; `plexy-ledger topics` creates it")
    return sorted(TopicPartition(topic, each["partition"]) for each in described["partitions"])


async def read_topic(settings: KafkaSettings, topic: str) -> list[ConsumerRecord[bytes, bytes]]:
    """Return all records of a topic; meant for small ones, they are held in memory."""
    async with reading(settings) as (admin, consumer):
        partitions = await partitions_of(admin, topic)
        consumer.assign(partitions)
        return await _read(consumer, await consumer.end_offsets(partitions))


async def _read(
    consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]
) -> list[ConsumerRecord[bytes, bytes]]:
    records: list[ConsumerRecord[bytes, bytes]] = []
    for partition, end in ends.items():
        while await consumer.position(partition) < end:
            for fetched in (await consumer.getmany(partition, timeout_ms=_FETCH_MS)).values():
                records += [record for record in fetched if record.offset < end]
    return records


class Lag(NamedTuple):
    """How many records of a topic are folded, of how many that are there."""

    topic: str
    done: int
    total: int


class PartitionLag(NamedTuple):
    """One partition: its first offset, the next one that is to be folded, and its end.

    ``deleted`` is how many records are gone that nobody had folded.
    """

    partition: int
    begin: int
    committed: int
    end: int
    deleted: int = 0

    @property
    def records(self) -> int:
        """How many records are not folded; what is gone for its age can't be, and need not be."""
        return max(self.end - self.committed, 0)


async def committed(
    admin: AIOKafkaAdminClient, group: str, partitions: Sequence[TopicPartition]
) -> dict[int, int]:
    """Return up to where a group has committed; partitions without a commit are absent."""
    try:
        found = await admin.list_consumer_group_offsets(group, partitions=list(partitions))
    except KafkaError as error:
        if not error.retriable:
            raise
        # A new broker makes the topic of the commits when it is first asked for one.
        return {}
    return {tp.partition: each.offset for tp, each in found.items() if each.offset >= 0}


async def lags(
    admin: AIOKafkaAdminClient,
    consumer: AIOKafkaConsumer,
    group: str,
    topic: str,
    ends: Mapping[int, int] | None = None,
) -> list[PartitionLag]:
    """Return each partition's lag; up to ``ends``, where they are given, else up to its end."""
    partitions = await partitions_of(admin, topic)
    begins = await consumer.beginning_offsets(partitions)
    done = await committed(admin, group, partitions)
    # Asked last: what is committed meanwhile is then behind an end that is not known yet.
    now = await consumer.end_offsets(partitions) if ends is None else {}
    found = []
    for tp in partitions:
        end = now[tp] if ends is None else ends.get(tp.partition, 0)
        at, begin = done.get(tp.partition, 0), begins[tp]
        deleted = max(begin - at, 0)
        found.append(PartitionLag(tp.partition, begin, max(at, begin), end, deleted))
    return found


def summed(topic: str, partitions: Iterable[PartitionLag]) -> Lag:
    """Return a topic's lag as one."""
    done = total = 0
    for each in partitions:
        total += max(each.end - each.begin, 0)
        done += max(min(each.committed, each.end) - each.begin, 0)
    return Lag(topic, done, total)
