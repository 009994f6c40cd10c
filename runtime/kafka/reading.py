"""Reads ranges of a topic's offsets with a client that belongs to no consumer group.

Input: a consumer, a topic, and the start and the end of each partition's range. Output: the records
in these ranges. Invariant: a reading stops at the ends, and never waits for later records.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from runtime.kafka.administration import administration
from runtime.kafka.connection import KafkaSettings

_FETCH_MS: Final = 200
# A compressed batch may contain millions of records.
_MOST_AT_ONCE: Final = 10_000
# A broker restarts within seconds, and the client retries until then.
_STALLED_AFTER_S: Final = 60.0


class StalledError(TimeoutError):
    """A topic has more records, but none arrives; the text names the offsets."""


@asynccontextmanager
async def clients(
    settings: KafkaSettings, **consumer_options: object
) -> AsyncIterator[tuple[AIOKafkaAdminClient, AIOKafkaConsumer]]:
    """Connect an admin client and a consumer; raise ``TopicsError`` if Kafka does not answer.

    The consumer belongs to no consumer group.
    """
    async with administration(settings) as admin:
        consumer = AIOKafkaConsumer(
            **settings.client_options(), auto_offset_reset="earliest", **consumer_options
        )
        await consumer.start()
        # If a consumer is stopped before its own task has run for the first time, it raises
        # CancelledError (aiokafka 0.14.0, NoGroupCoordinator). That would hide the error that ends
        # the block.
        await asyncio.sleep(0)
        try:
            yield admin, consumer
        finally:
            await consumer.stop()


async def read_ranges(
    consumer: AIOKafkaConsumer, topic: str, starts: Mapping[int, int], ends: Mapping[int, int]
) -> AsyncGenerator[tuple[int, list[Any]], None]:
    """Yield each partition's records from its start up to its end, a list at a time.

    Raises ``StalledError`` if no record arrives for ``_STALLED_AFTER_S``.
    """
    position = {number: starts[number] for number in ends}
    assigned: list[TopicPartition] = []
    give_up_s = time.monotonic() + _STALLED_AFTER_S
    while unread := [TopicPartition(topic, p) for p, end in ends.items() if position[p] < end]:
        if unread != assigned:
            if consumer.assignment() != set(unread):
                consumer.assign(unread)
            for tp in unread:
                consumer.seek(tp, position[tp.partition])
            assigned = unread
        fetched = await consumer.getmany(timeout_ms=_FETCH_MS, max_records=_MOST_AT_ONCE)
        for tp, records in fetched.items():
            position[tp.partition] = records[-1].offset + 1
            yield tp.partition, [each for each in records if each.offset < ends[tp.partition]]
        if fetched:
            give_up_s = time.monotonic() + _STALLED_AFTER_S
            continue
        # The last offsets of a compacted or transactional topic may have no records.
        for tp in unread:
            position[tp.partition] = await consumer.position(tp)
        if time.monotonic() > give_up_s:
            raise StalledError(
                f"no record of {topic} arrived in {_STALLED_AFTER_S:.0f} s, at offsets {position} "
                f"of {dict(ends)}: look at the broker's log"
            )
