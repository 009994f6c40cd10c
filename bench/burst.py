"""Prepares a burst: an input as finished record batches, which take almost no time to write.

Preparing the batches during a measurement would take processor time from the worker.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from bench.recording import RecordedDelivery
from bench.stage import LOAD_OPTIONS, Setup
from runtime.kafka.partitions import partition_for


class Burst:
    """Batches for the log of record, ready to be written; see ``prepared``."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._batches: list[tuple[int, BatchBuilder]] = []

    def prepare(self, deliveries: Sequence[RecordedDelivery], partitions: int) -> None:
        """Put the deliveries into batches; within each partition, they keep their sequence."""
        by_partition: dict[int, list[RecordedDelivery]] = defaultdict(list)
        for each in deliveries:
            by_partition[partition_for(each.key, partitions)].append(each)
        for partition, group in by_partition.items():
            batch = self._new_batch(partition)
            for each in group:
                record = {"key": each.key, "value": each.body, "headers": each.headers}
                if batch.append(timestamp=None, **record) is None:
                    batch = self._new_batch(partition)
                    batch.append(timestamp=None, **record)

    async def write(self) -> float:
        """Write all batches, and wait until the broker has acknowledged them.

        Return the Unix time in seconds at which the writing began.
        """
        began_s = time.time()
        futures = [
            await self._producer.send_batch(batch, self._topic, partition=partition)
            for partition, batch in self._batches
        ]
        await asyncio.gather(*futures)
        return began_s

    def _new_batch(self, partition: int) -> BatchBuilder:
        batch = self._producer.create_batch()
        self._batches.append((partition, batch))
        return batch


@asynccontextmanager
async def prepared(place: Setup, deliveries: Sequence[RecordedDelivery]) -> AsyncIterator[Burst]:
    """Prepare a burst; each delivery goes to the partition of its key, as in ingress."""
    async with AIOKafkaProducer(bootstrap_servers=place.bootstrap, **LOAD_OPTIONS) as producer:
        burst = Burst(producer, place.names.webhooks)
        burst.prepare(deliveries, place.partitions)
        yield burst
