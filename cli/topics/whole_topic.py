"""Reads a topic from its beginning to its end as of now.

In: Kafka's settings and a topic. Out: its records, by partition. Never: a consumer group, or a wait
for records that are not there yet.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

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
